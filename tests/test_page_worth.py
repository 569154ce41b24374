"""What gains are worth: combinations beside their parts, the champion without each change, promises and what came."""

from __future__ import annotations

import re
from html import unescape

import pytest
from django.contrib.auth.models import User
from django.test import Client

from research.loop.advance import advance_project_until_idle
from research.models import Ablation, Experiment, Project, Role, Thread
from tests.cast import World, focus, person

PARTS = ("ablation", "promises", "together")


@pytest.fixture
def mira(client: Client, project: Project) -> User:
    user = person("mira", Role.MEMBER, project)
    client.force_login(user)
    return user


@pytest.fixture
def champion(thread: Thread, world: World) -> Project:
    """Two merges: main stands on alpha and beta."""
    for name in ("alpha", "beta"):
        request = world.gain(thread, name)
        request.approve(request.commit)
        thread.refresh_from_db()
    focus(thread, "nothing at all")
    thread.project.refresh_from_db()
    return thread.project


def shown(client: Client, query: str = "", status: int = 200) -> str:
    response = client.get(f"/p/question/worth/{query}")
    assert response.status_code == status, response.content[:500]
    return response.content.decode()


def words(html: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)))


def measure(world: World, project: Project, rounds: int = 6) -> None:
    for _ in range(rounds):
        advance_project_until_idle(project.pk)
        world.run()


def test_a_project_without_gains_says_what_will_stand_here(client: Client, mira: User, thread: Thread) -> None:
    text = words(shown(client))
    assert "No ablation yet" in text and "No audit yet" in text and "No combination is measured yet" in text
    assert "there is no change to leave out" in text and "<form" not in shown(client, "?part=ablation")
    for part in PARTS:
        assert f'id="{part}"' in shown(client, f"?part={part}")


def test_a_member_asks_what_each_change_of_the_champion_is_worth(
    client: Client, mira: User, champion: Project, world: World
) -> None:
    html = shown(client, "?part=ablation")
    assert 'data-key="a"' in html and "2 changes, about" in words(html)
    reply = client.post("/p/question/worth/ablate/", {"pairs": "4"}, follow=True)
    assert "Measuring: each change of" in reply.content.decode()
    assert Ablation.objects.get().asked_by == mira
    advance_project_until_idle(champion.pk)
    assert "0 of 2 measured; asked for by mira" in words(shown(client, "?part=ablation"))
    measure(world, champion)
    html = shown(client, "?part=ablation")
    text = words(html)
    assert text.count("4 of 4 worth something") == 2 and "asked for by" not in text
    assert re.search(r'aria-label="what the champion loses without each change: (alpha|beta) \+0\.05', html)
    part = Experiment.objects.filter(purpose=Experiment.Purpose.ABLATION).first()
    assert part and f"/e/{part.public_id}/" in html
    assert "the champion without" in client.get(f"/e/{part.public_id}/").content.decode()
    assert client.get(f"/e/{part.public_id}/evidence/").status_code == 200


def test_asking_twice_is_asking_once(client: Client, mira: User, champion: Project) -> None:
    for _ in range(2):
        client.post("/p/question/worth/ablate/", {"pairs": "4"})
    assert Ablation.objects.count() == 1
    Ablation.objects.get().end("it is over")
    reply = client.post("/p/question/worth/ablate/", {"pairs": "4"}, follow=True)
    assert "Measured already" in reply.content.decode() and Ablation.objects.count() == 1


@pytest.mark.parametrize("pairs", ["", "1", "999", "many", "-3"])
def test_a_senseless_number_of_pairs_is_refused_in_words(
    client: Client, mira: User, champion: Project, pairs: str
) -> None:
    reply = client.post("/p/question/worth/ablate/", {"pairs": pairs}, follow=True)
    assert "ask for 2 to" in reply.content.decode() and not Ablation.objects.exists()


def test_an_ablation_of_a_champion_that_main_has_left_says_so(client: Client, mira: User, champion: Project) -> None:
    Ablation.ask(champion, mira, 4)
    Ablation.objects.update(champion="f" * 40)
    assert "Main has moved since" in words(shown(client, "?part=ablation"))


def test_promises_are_set_beside_what_the_champion_gained(
    client: Client, mira: User, champion: Project, world: World
) -> None:
    Project.objects.update(audit_every=2)
    measure(world, champion)
    html = shown(client, "?part=promises")
    assert "promised against realised gain: after 2 merges +0.0" in html and "</svg>" in html
    assert re.search(r"after 2 merges: \+0\.\d+ promised, \+0\.\d+ came \[", words(html))
    assert 'id="promises"' in client.get("/p/question/").content.decode()


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


def test_a_viewer_reads_and_asks_for_nothing(client: Client, champion: Project) -> None:
    client.force_login(person("vera", Role.VIEWER, champion))
    assert "A member can ask for one." in shown(client)
    assert client.post("/p/question/worth/ablate/", {"pairs": "4"}).status_code == 403


def test_who_may_not_see_the_project_finds_nothing(client: Client, outsider: User, project: Project) -> None:
    client.force_login(outsider)
    shown(client, status=404)
    assert client.post("/p/question/worth/ablate/", {"pairs": "4"}).status_code == 404
