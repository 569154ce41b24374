"""A gain that is tried again knows what it takes the place of, and the page shows what became of the change."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from django.utils.html import strip_tags

from research.models import MergeRequest, Project, Thread
from tests.cast import World, constants, step
from tests.stage import Stage
from tests.test_page_review import address, as_user, read, words

pytestmark = pytest.mark.django_db
State = MergeRequest.State


@pytest.fixture(scope="module")
def played(stage: Stage) -> Stage:
    return stage.gain("alpha")


@pytest.fixture
def second(project: Project) -> Thread:
    return Thread.objects.create(project=project, number=2, researcher="catalogue", head=project.start_commit)


def values(request: MergeRequest) -> float:
    return constants(request.project, request.commit)["ALPHA"]


def measured_again(world: World, thread: Thread) -> MergeRequest:
    assert world.until_verdict(thread).kind == "improved"
    step(thread), step(thread)
    return thread.merge_requests.open().latest("pk")


@pytest.fixture
def stale(thread: Thread, second: Thread, world: World, reviewer: User) -> tuple[MergeRequest, MergeRequest]:
    """A request that main left behind, and the one that took its place on the new main."""
    first = world.gain(thread, "alpha")
    other = world.gain(second, "beta")
    other.approve(other.commit, reviewer)
    return first, measured_again(world, thread)


def test_a_stale_request_is_superseded_by_its_combination_with_main(
    stale: tuple[MergeRequest, MergeRequest],
) -> None:
    first, again = stale
    first.refresh_from_db()
    assert first.state == State.STALE and again.supersedes == first
    assert first.patch_sets() == again.patch_sets() == [first, again]


def test_a_returned_request_is_superseded_by_its_second_try(thread: Thread, world: World, reviewer: User) -> None:
    first = world.gain(thread, "alpha")
    first.request_changes(reviewer, "smaller")
    again = measured_again(world, thread)
    assert again.supersedes == first and again.patch_sets() == [first, again]


def test_another_gain_supersedes_nothing(thread: Thread, world: World, reviewer: User) -> None:
    first = world.gain(thread, "alpha")
    assert world.gain(thread, "beta").supersedes is None
    assert first.supersedes is None and first.patch_sets() == [first]


def test_the_page_lists_patch_sets_and_shows_what_the_change_became(
    stale: tuple[MergeRequest, MergeRequest], reviewer: User
) -> None:
    first, again = stale
    rosa = as_user(reviewer)
    text = words(read(rosa, address(again)))
    assert "patch set 2 of 2" in text and "interdiff 1 → 2" in text
    page = words(read(rosa, f"{address(again)}?from=1"))
    assert "Interdiff 1 → 2" in page and "The change itself is the same Only what it stands on moved." in page
    assert "superseded by patch set 2" in words(read(rosa, address(first)))
    assert "tried again" in words(read(rosa, reverse("review")))


def test_the_interdiff_of_a_second_try_is_its_new_setting(thread: Thread, world: World, reviewer: User) -> None:
    first = world.gain(thread, "alpha")
    first.request_changes(reviewer, "smaller")
    again = measured_again(world, thread)
    rosa = as_user(reviewer)
    assert "Interdiff 1 → 2" in words(read(rosa, f"{address(again)}?from=1"))
    lines = read(rosa, f"{reverse('request-diff', args=[again.public_id, 0])}?from=1")
    rows = re.findall(r'<tr class="(removed|added)".*?<td class="c">(.*?)</td>', lines)
    assert [(kind, strip_tags(code)) for kind, code in rows] == [
        ("removed", f"ALPHA = {values(first)}"), ("added", f"ALPHA = {values(again)}"),
    ]  # fmt: skip


def test_a_patch_set_that_is_not_there_is_not_found(stale: tuple[MergeRequest, MergeRequest], reviewer: User) -> None:
    rosa = as_user(reviewer)
    for number in ("2", "7", "-1", "x", "9" * 30):
        assert rosa.get(f"{address(stale[1])}?from={number}").status_code == 404
    assert rosa.get(f"{address(stale[0])}?from=1").status_code == 404
