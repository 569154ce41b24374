"""What gains are worth: the champion without each of its changes, and promises beside what came of them."""

from __future__ import annotations

import re
from html import unescape

import pytest
from django.contrib.auth.models import User
from django.test import Client

from research.loop.advance import advance_project_until_idle
from research.models import Ablation, Experiment, Project, Role
from tests.cast import World, focus, person
from tests.stage import Stage

PARTS = ("ablation", "promises", "together")


@pytest.fixture
def mira(client: Client, project: Project) -> User:
    user = person("mira", Role.MEMBER, project)
    client.force_login(user)
    return user


@pytest.fixture(scope="module")
def played(stage: Stage) -> Stage:
    """Two merges: main stands on alpha and beta."""
    thread = stage.thread
    for name in ("alpha", "beta"):
        request = stage.world.gain(thread, name)
        request.approve(request.commit)
        thread.refresh_from_db()
    focus(thread, "nothing at all")
    return stage.kept()


@pytest.fixture
def champion(world: World, project: Project) -> Project:
    return project


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


def test_a_viewer_reads_and_asks_for_nothing(client: Client, champion: Project) -> None:
    client.force_login(person("vera", Role.VIEWER, champion))
    assert "A member can ask for one." in shown(client)
    assert client.post("/p/question/worth/ablate/", {"pairs": "4"}).status_code == 403


def test_who_may_not_see_the_project_finds_nothing(client: Client, outsider: User, project: Project) -> None:
    client.force_login(outsider)
    shown(client, status=404)
    assert client.post("/p/question/worth/ablate/", {"pairs": "4"}).status_code == 404
