"""The project page and the form that begins one, on the toy benchmark."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from research.models import (
    AuditEntry,
    Event,
    Experiment,
    Idea,
    Project,
    Result,
    Role,
    Thread,
)
from research.views.frontier import compound, drawing, frontier_of, key_of
from research.views.gain import gain_of
from research.views.now import now_line, now_lines
from research.views.spent import spent_of
from tests.cast import begin, go, person

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from tests.cast import World

PARTS = ("head", "figures", "frontier", "threads", "requests", "experiments", "lessons", "budget", "samples")
HOSTILE = "<script>alert('it')</script>"


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


def test_the_page_tells_the_gain_of_the_champion_and_of_what_waits(
    mia: Client, project: Project, thread: Thread, world: World, reviewer: User
) -> None:
    first = world.gain(thread, "alpha")
    page = text_of(mia, f"/p/{project.name}/")
    assert f"/review/{first.public_id}/" in page and "0 merged, 1 waiting" in page
    assert "the champion is still the start" in page
    first.approve(first.commit, reviewer)
    page = text_of(mia, f"/p/{project.name}/")
    assert "product of 1 measured gain" in page and "approved by rosa" in page
    seen = frontier_of(project, key_of(Project.objects.get(pk=project.pk)))
    gain = gain_of(first.verdict)
    assert seen.gain is not None and gain is not None and seen.gain.height == pytest.approx(gain.mean)
    assert seen.gain.low < 0.05 < seen.gain.high, "the interval holds what ALPHA is worth"


def test_gains_compound_along_the_chain_and_attempts_stand_on_their_baseline(
    project: Project, thread: Thread, world: World, reviewer: User
) -> None:
    world.gain(thread, "alpha")
    second = world.gain(thread, "beta")
    second.approve(second.commit, reviewer)
    project.refresh_from_db()
    seen = frontier_of(project)
    assert [round(rise.height, 2) for rise in seen.steps] == [0.05, 0.10]
    first, both = (math.log((1 - rise.low) / (1 - rise.high)) for rise in seen.steps)
    assert both > first, "errors add up along the chain"
    assert seen.attempts[1].base == pytest.approx(seen.steps[0].height)
    assert compound(0.1, 0.1, lower=True) == pytest.approx(0.19)
    assert compound(0.1, 0.1, lower=False) == pytest.approx(0.21)
    heights, kinds = seen.path_of(thread.pk)
    assert kinds == ["improved", "improved"] and heights[0] == 0 and heights == sorted(heights)


def test_the_frontier_is_drawn_anew_only_when_it_changed(
    mia: Client, project: Project, thread: Thread, world: World
) -> None:
    world.gain(thread, "alpha")
    key = key_of(project)
    assert drawing(key) is drawing(key_of(project)), "kept between two looks"
    page = text_of(mia, f"/p/{project.name}/?part=frontier")
    have = page.split("have=")[1].split('"')[0]
    same = mia.get(f"/p/{project.name}/?part=frontier&have={have}")
    assert same.status_code == 204 and not same.content
    world.gain(thread, "beta")
    assert mia.get(f"/p/{project.name}/?part=frontier&have={have}").status_code == 200


@pytest.mark.parametrize("part", PARTS)
def test_every_part_stands_alone(mia: Client, project: Project, thread: Thread, world: World, part: str) -> None:
    world.gain(thread, "alpha")
    fragment = text_of(mia, f"/p/{project.name}/?part={part}")
    assert "<html" not in fragment


def test_the_page_costs_few_queries_however_many_experiments(
    mia: Client, project: Project, thread: Thread, world: World
) -> None:
    def cost(url: str) -> int:
        with CaptureQueriesContext(
            connection,
        ) as queries:
            text_of(mia, url)
        return len(queries)

    world.gain(thread, "alpha")
    text_of(mia, f"/p/{project.name}/")
    few = cost(f"/p/{project.name}/?part=experiments")
    world.gain(thread, "beta", "gamma")
    text_of(mia, f"/p/{project.name}/")
    assert cost(f"/p/{project.name}/?part=experiments") <= few
    assert cost(f"/p/{project.name}/?part=threads") <= 20
    assert cost(f"/p/{project.name}/") <= 62


def test_hostile_text_of_a_candidate_stays_text(mia: Client, project: Project, thread: Thread, world: World) -> None:
    world.gain(thread, "alpha")
    Idea.objects.update(title=HOSTILE, hypothesis=HOSTILE)
    Result.objects.filter(trial__commit=project.start_commit).update(sample=HOSTILE)
    project.lessons.update(text=HOSTILE)
    Project.objects.update(state_reason=HOSTILE)
    drawing.cache_clear()
    page = text_of(mia, f"/p/{project.name}/")
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert "What the models write" in page


def test_a_spreadsheet_runs_nothing(mia: Client, project: Project, thread: Thread, world: World) -> None:
    world.gain(thread, "alpha")
    Idea.objects.update(hypothesis="=1+1")
    response = mia.get(f"/p/{project.name}/?export=csv")
    lines = b"".join(response.streaming_content).decode().splitlines()  # type: ignore[attr-defined]
    assert "attachment" in response["Content-Disposition"]
    assert lines[0].startswith("experiment,thread") and len(lines) == 1 + project.experiments.count()
    assert any(",'=1+1,improved," in line for line in lines)


def test_filters_live_in_the_address_and_odd_ones_are_ignored(
    mia: Client, project: Project, thread: Thread, world: World
) -> None:
    world.gain(thread, "alpha")
    experiment = Experiment.objects.get(verdict__kind="improved")
    row = f"experiment-{experiment.public_id}"
    base = f"/p/{project.name}/?part=experiments"
    assert row in text_of(mia, f"{base}&kind=improved") and row in text_of(mia, f"{base}&thread=1&kind=")
    assert row not in text_of(mia, f"{base}&kind=worse") and row not in text_of(mia, f"{base}&thread=7")
    for odd in ("kind=<x>", "page=-3", "page=99999999999", "thread=٣", "x=sideways"):
        assert row in text_of(mia, f"{base}&{odd}")


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


def test_old_results_are_summed_once(project: Project, thread: Thread, world: World) -> None:
    world.gain(thread, "alpha")
    total = Result.objects.count()
    Result.objects.update(created="2020-01-01T00:00:00Z")
    assert spent_of(project).all.trials == total and spent_of(project).threads[thread.pk].seconds == total
    Result.objects.filter(pk=Result.objects.order_by("pk")[0].pk).update(device_seconds=99)
    world.gain(thread, "beta")
    assert spent_of(project).all.seconds == Result.objects.count(), "what was summed is not read again"


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
