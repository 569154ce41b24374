"""What gains are worth: the page before there are any, and a combination beside its parts."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from research.models import Project, Role, Thread
from tests.cast import World, focus, person
from tests.test_page_worth import PARTS, measure, shown, words


@pytest.fixture
def mira(client: Client, project: Project) -> User:
    user = person("mira", Role.MEMBER, project)
    client.force_login(user)
    return user


def test_a_project_without_gains_says_what_will_stand_here(client: Client, mira: User, thread: Thread) -> None:
    text = words(shown(client))
    assert "No ablation yet" in text and "No audit yet" in text and "No combination is measured yet" in text
    assert "there is no change to leave out" in text and "<form" not in shown(client, "?part=ablation")
    for part in PARTS:
        assert f'id="{part}"' in shown(client, f"?part={part}")


def test_a_combination_stands_beside_its_parts_on_both_pages(
    client: Client, mira: User, project: Project, thread: Thread, world: World
) -> None:
    second = Thread.objects.create(project=project, number=2, researcher="catalogue", head=project.start_commit)
    for each, name in ((thread, "alpha"), (second, "beta")):
        world.gain(each, name)
        focus(each, "nothing at all")
    verdict = world.until_verdict(thread)
    measure(world, project, 3)
    drawn = "a combination beside its parts, 4 pairs each: thread 1: alpha +0.0"
    assert drawn in shown(client, "?part=together") and "no interaction is shown" in shown(client, "?part=together")
    evidence = client.get(f"/e/{verdict.experiment.public_id}/evidence/").content.decode()
    assert drawn in evidence and "the parts added up" in evidence
