"""A project whose candidates are screened under a shorter preset: rows, floors, evidence, and what screening missed."""

from __future__ import annotations

import json

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from research.loop import fidelity, noise, screens
from research.loop.advance import advance_project_until_idle
from research.loop.floors import noise_floor
from research.loop.memory import view_of
from research.loop.recall import lessons_text, recall
from research.management.summary import summary
from research.models import DataUse, Experiment, Machine, NoiseFloor, NotMergeable, Project, Role, Thread
from research.models.pace import pair_seconds
from research.validation.records import Evidence
from tests.cast import SIGMA, World, begin, focus, person, step

pytestmark = pytest.mark.django_db


@pytest.fixture
def two(quick: Machine, toy: None) -> World:
    """ALPHA is worth the same at both presets, BETA only where it is screened, DELTA harms there and helps later."""
    return World(
        quick, {"ALPHA": 0.05, "DELTA": 0.04}, screened={"ALPHA": 0.06, "BETA": 0.05, "DELTA": -0.05}
    )  # fmt: skip


@pytest.fixture
def thread(two: World) -> Thread:
    return begin(preset="long").threads.get()


def measure_noise(project: Project, world: World) -> None:
    for _ in range(3):
        advance_project_until_idle(project.pk)
        world.run()
    advance_project_until_idle(project.pk)


def test_screens_run_at_their_own_preset_and_confirmation_at_the_projects(two: World, thread: Thread) -> None:
    focus(thread, "alpha")
    verdict = two.until_verdict(thread)
    assert verdict.kind == "improved"
    presets = set(verdict.experiment.trials.values_list("stage", "arm", "preset"))
    assert {(stage, preset) for stage, _, preset in presets} == {
        ("screen", "quick"), ("extend", "quick"), ("confirm", ""),
    }  # fmt: skip
    trial = verdict.experiment.trials.filter(stage="screen")[0]
    assert (trial.sizes.budget_seconds, thread.project.sizes.budget_seconds) == (1.0, 3.0)
    assert verdict.relative == pytest.approx(0.05, abs=0.005), "gains of two presets have no mean"


def test_every_preset_has_a_noise_floor_of_its_own(two: World, thread: Thread) -> None:
    project = thread.project
    assert noise.progress(project) == (0, 24)
    left = 6 * (pair_seconds(project) + pair_seconds(project, "quick"))
    assert noise.seconds_left(project) == left > 0, "each preset's pairs take their own time"
    measure_noise(project, two)
    assert noise.progress(project) == (24, 24) and noise.seconds_left(project) == 0
    screens, own = noise_floor(project, "quick"), noise_floor(project)
    assert screens and own and NoiseFloor.objects.count() == 2
    assert screens.sigma_trial > 1.3 * own.sigma_trial, "the toy's screens are twice as noisy"
    assert screens.level == pytest.approx(1.5, abs=10 * SIGMA)


def test_screening_is_read_against_the_noise_it_was_measured_in(two: World, thread: Thread) -> None:
    measure_noise(thread.project, two)
    focus(thread, "alpha")
    evidence = Evidence.from_json(two.until_verdict(thread).evidence)
    assert evidence.screening and evidence.screening.preset == "quick" and evidence.screening.noise
    assert evidence.noise and evidence.screening.noise.sigma_pair > evidence.noise.sigma_pair
    assert evidence.screening.relation is None, "one technique tells nothing"


def test_what_gains_only_where_it_is_screened_is_not_merged(two: World, thread: Thread) -> None:
    measure_noise(thread.project, two)
    focus(thread, "beta")
    verdict = two.until_verdict(thread)
    assert verdict.stage == "confirm" and verdict.kind != "improved"
    assert verdict.relative == pytest.approx(0, abs=0.005)


def test_what_screening_stopped_can_be_measured_at_the_projects_preset(two: World, thread: Thread) -> None:
    project = thread.project
    measure_noise(project, two)
    focus(thread, "delta")
    assert two.until_verdict(thread).stage == "screen"
    assert screens.points_of(project) == []
    asked = fidelity.measure(project, 5)
    assert [one.purpose for one in asked] == [Experiment.Purpose.FIDELITY] and fidelity.measure(project, 5) == []
    assert set(asked[0].trials.values_list("preset", "split")) == {("", "val_screen")}
    assert not DataUse.objects.filter(split__startswith="val_confirm").exists()
    two.run()
    advance_project_until_idle(project.pk)
    (point,) = screens.points_of(project)
    assert (point.screened, point.confirmed) == pytest.approx((-0.05, 0.04), abs=0.01)
    assert point.label == "delta" and not point.was_confirmed and point.confirmed_pairs == 2


def test_where_screening_is_not_shown_to_foretell_candidates_are_screened_at_the_projects_own(
    two: World, thread: Thread, client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """ALPHA gains at both presets, BETA at the shorter one alone, DELTA at the longer one alone."""
    project = thread.project
    measure_noise(project, two)
    for name in ("alpha", "beta", "delta"):
        focus(thread, name)
        two.until_verdict(thread)
        assert step(thread) == "learn"
    fidelity.measure(project, 5)
    two.run()
    advance_project_until_idle(project.pk)
    assert len(screens.points_of(project)) == 3
    assert screens.relation_of(project) is None and not screens.screens_at(project) and not screens.blind_stops(project)
    monkeypatch.setattr("research.validation.fidelity.LEAST_TECHNIQUES", 3)
    relation = screens.relation_of(project)
    assert relation is not None and not relation.is_shown
    stopped = Experiment.objects.get(candidate__idea__steps__0__technique="delta")
    assert screens.screens_at(project) == "long" and screens.blind_stops(project) == {stopped.pk}
    view = view_of(thread, 9)
    over = [attempt for attempt in view.attempts if not attempt.running]
    assert "delta" not in {step.technique for attempt in over for step in attempt.steps}
    assert "delta" not in {step.technique for lesson in view.lessons for step in lesson.steps}
    said = lessons_text(recall(project, "delta", thread.head), project)
    assert said.count("may be tried again") == 1

    focus(thread, "delta")
    verdict = two.until_verdict(thread)
    again = verdict.experiment
    assert again.pk != stopped.pk and again.candidate and again.candidate.idea.techniques == ["delta"]
    assert again.preset == "long" and set(again.trials.values_list("preset", flat=True)) == {""}
    assert verdict.kind == "improved"
    assert Evidence.from_json(verdict.evidence).screening is None, "all of its pairs are of one preset"
    assert len(screens.points_of(project)) == 3, "it says nothing of the shorter preset"
    advance_project_until_idle(project.pk)
    assert not stopped.lesson.superseded_by
    client.force_login(person("mira", Role.MEMBER))
    assert "; screening at" not in client.get(f"/e/{again.public_id}/evidence/").content.decode()
    call_command("fidelity", "question")
    assert "new candidates are screened at long\n" in capsys.readouterr().out
    assert "candidates are screened at long" in client.get("/p/question/worth/").content.decode()


def test_a_project_that_screens_at_its_own_preset_has_nothing_to_compare(project: Project) -> None:
    assert screens.screening_of(project) is None and screens.points_of(project) == []
    with pytest.raises(NotMergeable, match="screens under its own preset"):
        fidelity.measure(project, 3)


def test_confirmation_waits_for_the_floor_of_the_projects_own_preset(two: World, thread: Thread) -> None:
    experiment = two.screens(thread, "alpha")
    measure_noise(thread.project, two)
    assert step(thread) == "judge" and experiment.trials.filter(stage="confirm", preset="").count() == 8


def test_a_project_that_has_moved_measures_first_what_confirmation_waits_for(two: World, thread: Thread) -> None:
    project = thread.project
    measure_noise(project, two)
    machine = Machine.objects.create(name="moved", machine_class="other cpu, 2 slots", slots=2)
    machine.beat()
    moved = World(machine, two.gains, screened=two.screened)
    moved.screens(thread, "alpha")
    advance_project_until_idle(project.pk)
    waiting = Experiment.objects.running().filter(purpose=Experiment.Purpose.NOISE)
    assert [experiment.preset for experiment in waiting] == [""], "a floor of the other class stands in for screens"
    measure_noise(project, moved)
    assert NoiseFloor.objects.count() == 4
    assert moved.until_verdict(thread).kind == "improved"


def test_a_rule_without_screening_needs_no_second_floor(two: World) -> None:
    assert begin("ten", preset="long", rule="ten_seeds").measured_presets == ("long",)


def test_the_command_says_what_is_known_and_asks_for_more(
    two: World, thread: Thread, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    measure_noise(thread.project, two)
    focus(thread, "delta")
    two.until_verdict(thread)
    call_command("fidelity", "question", measure=3)
    told = capsys.readouterr().out
    assert "1 candidates will be measured at long" in told and "read from 10 on" in told
    two.run()
    advance_project_until_idle(thread.project_id)
    call_command("fidelity", "question", json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["points"][0]["label"] == "delta" and found["relation"] is None and found["being_measured"] == 0
    assert summary(thread.project)["fidelity_points"] == found["points"]
    client.force_login(person("mira", Role.MEMBER))
    for experiment in Experiment.objects.all():
        for place in ("", "evidence/"):
            answer = client.get(f"/e/{experiment.public_id}/{place}")
            assert answer.status_code == 200, (experiment, place)
    screened = Experiment.objects.get(purpose=Experiment.Purpose.COMPARE)
    assert "at quick, which chose" in client.get(f"/e/{screened.public_id}/evidence/").content.decode()
    assert client.get("/p/question/").status_code == 200
    page = client.get("/p/question/worth/").content.decode()
    assert "a correlation is read from 10 on" in page and "delta: " in page
    with pytest.raises(CommandError, match="no project named 'nobody'; there are: question"):
        call_command("fidelity", "nobody")
