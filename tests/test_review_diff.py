"""The diff of the merge page: what each person has viewed, and the two ways to show it."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from research.models import MergeRequest, Preferences, Role, Thread, Viewed
from research.views.difftext import files_of
from tests.cast import World, person
from tests.test_page_review import address, as_user, read
from tests.test_patch_sets import measured_again

pytestmark = pytest.mark.django_db


@pytest.fixture
def request_(thread: Thread, world: World) -> MergeRequest:
    return world.gain(thread, "alpha")


def view(client: Client, request: MergeRequest, value: str = "1", number: int = 0) -> int:
    return client.post(reverse("viewed", args=[request.public_id, number]), {"viewed": value}).status_code


def is_viewed(client: Client, request: MergeRequest) -> bool:
    (file,) = re.findall(r'<details class="file".*?</summary>', read(client, address(request)), re.DOTALL)
    folded = " open " not in file.split(">")[0]
    assert folded == ("data-viewed>" in file), "a viewed file is folded"
    return folded


def test_a_viewed_file_is_folded_for_this_person_alone(request_: MergeRequest, reviewer: User) -> None:
    rosa, vera = as_user(reviewer), as_user(person("vera", Role.VIEWER))
    assert view(rosa, request_) == 302 == view(rosa, request_)
    assert is_viewed(rosa, request_) and not is_viewed(vera, request_)
    assert Viewed.objects.count() == 1
    view(rosa, request_, "0")
    assert not is_viewed(rosa, request_)
    assert view(vera, request_) == 302 and view(vera, request_, number=9) == 404
    assert view(as_user(person("otto", None)), request_) == 404


def test_a_file_that_changed_is_to_be_viewed_again(
    request_: MergeRequest, thread: Thread, world: World, reviewer: User
) -> None:
    rosa = as_user(reviewer)
    view(rosa, request_)
    request_.request_changes(reviewer, "smaller")
    assert not is_viewed(rosa, measured_again(world, thread)) and is_viewed(rosa, request_)


def test_side_by_side_is_chosen_in_the_address_or_kept(request_: MergeRequest, reviewer: User) -> None:
    rosa, url = as_user(reviewer), reverse("request-diff", args=[request_.public_id, 0])
    assert 'class="code split"' not in read(rosa, url) and 'class="code split"' in read(rosa, f"{url}?split=1")
    response = rosa.post(reverse("diff-layout", args=[request_.public_id]), {"split": "1"})
    assert response["Location"] == f"{address(request_)}#files" and Preferences.of(reviewer).split_diff
    assert 'class="code split"' in read(rosa, url) and 'class="code split"' not in read(rosa, f"{url}?split=0")
    assert "?split=1" in read(rosa, address(request_)), "its files are fetched as it is shown"


def test_old_and_new_lines_stand_side_by_side() -> None:
    patch = "diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1,4 +1,5 @@\n one\n-two\n-three\n+2\n+3\n+4\n four\n"
    (hunk,) = files_of(patch)[0].hunks
    rows = hunk.markup(split=True, below={("new", 2): "<b>said</b>"}).split("<tr ")[1:]
    sides = [re.findall(r'class="c (\w+)">(?:<[^>]*>)?(\w*)', row) for row in rows]
    assert sides == [
        [("context", "one"), ("context", "one")],
        [("removed", "two"), ("added", "2")],
        [],
        [("removed", "three"), ("added", "3")],
        [("none", ""), ("added", "4")],
        [("context", "four"), ("context", "four")],
    ]
    assert "<b>said</b>" in rows[2], "below the line that it is about"
