"""The project page before its first gain and the form that begins one, on the toy benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from research.models import (
    AuditEntry,
    Event,
    Experiment,
    Project,
    Role,
    Thread,
)
from research.views.now import now_line, now_lines
from tests.cast import begin, go, person

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from tests.cast import World


@pytest.fixture
def client_of(db: None):  # type: ignore[no-untyped-def]
    def signed_in(user: User) -> Client:
        client = Client()
        client.force_login(user)
        return client

    return signed_in


@pytest.fixture
def mia(client_of, member: User) -> Client:  # type: ignore[no-untyped-def]
    return client_of(member)


def text_of(client: Client, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200, response.status_code
    return response.content.decode()


def test_a_new_project_says_what_comes_first(mia: Client, project: Project) -> None:
    page = text_of(mia, f"/p/{project.name}/")
    assert project.question in page.replace("&#x27;", "'")
    assert "No verdict yet" in page and "No machine is attached" in page
    assert "the champion is still the start" in page and "of 12" in page
    assert "Nothing waits for you" in page


def test_who_may_see_and_who_may_act(client_of, project: Project, member: User, outsider: User) -> None:  # type: ignore[no-untyped-def]
    url = f"/p/{project.name}/"
    anonymous = Client().get(url)
    assert anonymous.status_code == 302 and "/sign-in/" in anonymous["Location"]
    assert client_of(outsider).get(url).status_code == 404
    viewer = client_of(person("vera", Role.VIEWER, project))
    assert "Add a thread" not in text_of(viewer, url) and "Change the budget" not in text_of(viewer, url)
    assert viewer.post(f"{url}state/", {"action": "pause"}).status_code == 403
    assert viewer.post(f"{url}threads/", {"researcher": "catalogue"}).status_code == 403
    assert client_of(outsider).post(f"{url}state/", {"action": "pause"}).status_code == 404


def test_a_member_pauses_resumes_and_sets_the_budget(mia: Client, project: Project, member: User) -> None:
    url = f"/p/{project.name}/state/"
    mia.post(url, {"action": "pause"})
    project.refresh_from_db()
    assert project.state == Project.State.PAUSED
    assert Event.objects.filter(kind=Event.Kind.STATE, actor=member).exists()
    mia.post(url, {"action": "resume"})
    mia.post(url, {"action": "budget", "max_trials": "1,200", "device_hours": "1.5", "wall_hours": ""})
    project.refresh_from_db()
    assert (project.state, project.max_trials, project.max_device_seconds) == ("active", 1200, 5400)
    assert project.max_wall_seconds is None
    said = mia.post(url, {"action": "budget", "max_trials": "lots"}, follow=True).content.decode()
    assert "is not a number" in said and Project.objects.get().max_trials == 1200
    assert "there is no action" in mia.post(url, {"action": "explode"}, follow=True).content.decode()


def test_a_member_adds_a_thread_from_main(mia: Client, project: Project, member: User) -> None:
    response = mia.post(f"/p/{project.name}/threads/", {"researcher": "catalogue"})
    thread = project.threads.get(number=2)
    assert response["Location"] == f"/t/{thread.public_id}/"
    assert thread.head == project.champion and thread.steered_by == member
    said = mia.post(f"/p/{project.name}/threads/", {"researcher": "nobody"}, follow=True).content.decode()
    assert "there is no researcher" in said and project.threads.count() == 2


def test_the_now_line_follows_a_thread_from_idea_to_verdict(project: Project, thread: Thread, world: World) -> None:
    assert now_line(thread).stage == "proposing"
    go(thread)
    waiting = now_line(thread)
    assert waiting.stage == "screen" and "no machine is attached" in waiting.text
    world.machine.beat()
    assert "waits for a machine" in now_line(thread).text
    leases = Experiment.objects.get().trials.model.objects.claim_pair(world.machine, "player")
    measuring = now_line(thread)
    assert measuring.text == "screening, pair 1 of 1 on quick" and measuring.is_measuring
    assert measuring.trial is not None and measuring.trial.arm == "candidate" and measuring.machine == "quick"
    for lease in leases:
        world.finish(lease)
    assert now_line(thread).stage == "judging"
    thread.halt("Traceback\n  somewhere\nValueError: the head has no file train.py\n")
    thread.refresh_from_db()
    assert now_line(thread).text == "halted: ValueError: the head has no file train.py"


def test_now_lines_of_many_threads_cost_a_handful_of_queries(toy: None, db: None) -> None:
    project = begin("wide", threads=12)
    for thread in project.threads.all():
        go(thread)
    with CaptureQueriesContext(connection) as queries:
        lines = now_lines(project.threads.all())
    assert len(lines) == 12 and len(queries) <= 8


# The form


def form(**changes: object) -> dict[str, object]:
    fields = {"benchmark": "toy", "preset": "quick", "start": "plain", "researcher": "catalogue", "threads": "3"}
    return {**fields, "name": "mine", "question": "", **changes}


def test_the_form_shows_what_a_size_costs_and_the_stored_noise(mia: Client, world: World) -> None:
    world.machine.beat()
    page = text_of(mia, "/projects/new/")
    assert "1 CPU-seconds on one core" in page and "Noise floor stored for quick cpu, 2 slots" in page
    assert 'value="toy-quick-plain"' in page and "confirms gains from 0.0012 " in page


def test_a_member_begins_a_project_that_searches_at_once(mia: Client, member: User, toy: None) -> None:
    response = mia.post("/projects/new/", form(max_trials="100", device_hours="2", question="Is it so?"))
    project = Project.objects.get()
    assert response["Location"] == "/p/mine/"
    assert (project.started_by, project.max_trials, project.max_device_seconds) == (member, 100, 7200)
    assert project.question == "Is it so?" and project.threads.count() == 3 and project.champion
    assert not project.single_person and not project.auto_approve
    assert AuditEntry.objects.filter(actor=member, action="start").exists()


def test_a_member_chooses_the_rule_of_evidence(mia: Client, toy: None) -> None:
    page = text_of(mia, "/projects/new/")
    assert 'value="funnel" checked' in page and "paired t-test, one-sided p" in page
    mia.post("/projects/new/", form(name="plain"))
    mia.post("/projects/new/", form(name="ten", rule="ten_seeds"))
    mia.post("/projects/new/", form(name="fast", rule="speedrun", target="3.28"))
    rules = {project.name: project.rule for project in Project.objects.all()}
    assert [rules[name]["procedure"] for name in ("plain", "ten", "fast")] == ["funnel", "pairs", "target"]
    assert rules["fast"]["target"] == 3.28 and rules["ten"]["looks"] == [10]


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"rule": "speedrun"}, "The rule speedrun needs a target score."),
        ({"rule": "luck"}, "luck is not one of the available choices"),
        ({"name": "question"}, "There is a project question already"),
        ({"name": "a b"}, "letters, digits"),
        ({"threads": "0"}, "greater than or equal to 1"),
        ({"threads": "400"}, "less than or equal to 16"),
        ({"device_hours": "-1"}, "greater than or equal to 0.01"),
        ({"preset": "huge"}, "huge is not one of the available choices"),
        ({"start": "../../etc"}, "not one of the available choices"),
    ],
)
def test_each_field_says_what_is_wrong_with_it(
    mia: Client, project: Project, changes: dict[str, str], said: str
) -> None:
    response = mia.post("/projects/new/", form(**changes))
    assert response.status_code == 422 and said in response.content.decode().replace("&#x27;", "'")
    assert Project.objects.count() == 1


def test_sizes_of_another_lane_say_what_they_lack_and_their_starts(mia: Client, db: None) -> None:
    page = text_of(mia, "/projects/new/?benchmark=nanochat")
    assert (
        "Not yet: nanochat has no data for gpu-60s yet: run `python -m benchmarks.nanochat prepare --preset gpu-60s`"
        in page
    )
    assert "Not yet: no machine with a GPU has been attached in the last day" in page
    assert "modern (gpu)" in page and "vanilla (cpu, gpu)" in page
    response = mia.post("/projects/new/", form(benchmark="nanochat", preset="cpu", start="modern"))
    assert response.status_code == 422 and "cpu has no start modern; choose vanilla." in response.content.decode()


def test_only_an_admin_may_begin_in_single_person_mode(client_of, mia: Client, toy: None) -> None:  # type: ignore[no-untyped-def]
    mia.post("/projects/new/", form(single_person="on"))
    assert not Project.objects.get().single_person
    assert "Single-person" not in text_of(mia, "/projects/new/")
    client_of(person("ada", Role.ADMIN)).post("/projects/new/", form(name="hers", single_person="on"))
    assert Project.objects.get(name="hers").single_person


def test_a_viewer_may_not_begin_a_project(client_of, toy: None, db: None) -> None:  # type: ignore[no-untyped-def]
    assert client_of(person("vera", Role.VIEWER)).get("/projects/new/").status_code == 403


def test_missing_data_name_the_command_that_prepares_them(mia: Client, toy: None, monkeypatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("LAB_DATA", str(tmp_path))
    assert "python -m benchmarks.toy prepare" in text_of(mia, "/projects/new/")
    response = mia.post("/projects/new/", form())
    assert response.status_code == 422 and not Project.objects.exists()
