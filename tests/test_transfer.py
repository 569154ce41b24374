"""Quality against training time, and what transfers to another budget or size."""

from __future__ import annotations

import json

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client

from research.loop.advance import advance_project_until_idle
from research.loop.transfer import ask, over_time, parse_constants
from research.models import Chunk, Experiment, MergeRequest, NotMergeable, Project, Series, Thread
from research.validation.records import Direction
from research.validation.sooner import AtBudget, half_width, reached, sooner
from tests.cast import World, constants

SLOW = [AtBudget("s", 20.0, (1.50, 1.51)), AtBudget("m", 60.0, (1.30, 1.31, 1.29, 1.30))]


def fast(*rows: tuple[float, float]) -> list[AtBudget]:
    return [AtBudget(f"{seconds:g}", seconds, (score - 0.002, score, score + 0.002)) for seconds, score in rows]


def test_the_same_quality_is_read_between_the_budgets_in_the_log_of_time() -> None:
    found = sooner(SLOW, fast((20, 1.40), (60, 1.20)), 60.0, Direction.LOWER)
    assert found and found.target == pytest.approx(1.30)
    assert found.seconds == pytest.approx(20 * 3**0.5) and found.factor == pytest.approx(3**0.5)
    assert found.low is not None and found.high is not None and found.low < 3**0.5 < found.high
    assert found.high - found.low < 0.3 and "1.73 × sooner" in found.words


def test_what_is_beyond_the_measured_budgets_is_a_bound_or_nothing() -> None:
    early = sooner(SLOW, fast((20, 1.25), (60, 1.20)), 60.0, Direction.LOWER)
    assert early and early.at_least and early.factor == 3.0 and "at least 3" in early.words
    late = sooner(SLOW, fast((20, 1.6), (60, 1.5)), 60.0, Direction.LOWER)
    assert late and late.never and late.factor is None and "is not reached" in late.words
    assert sooner(SLOW, fast((20, 1.2)), 300.0, Direction.LOWER) is None
    up = sooner([AtBudget("m", 60.0, (0.5,))], [AtBudget("s", 20.0, (0.4,)), AtBudget("m", 60.0, (0.6,))], 60.0,
                Direction.HIGHER)  # fmt: skip
    assert up and up.factor == pytest.approx(3**0.5) and up.low is None
    curves = np.array([[3.0, 2, 1]] * 4)
    times = reached(np.array([1.0, 2, 4]), curves, np.array([3.0, 2.0, 1.5, 0.5]))
    assert times == pytest.approx([1.0, 2.0, 8**0.5, np.inf])


def test_an_end_that_no_budget_bounds_is_said_to_lie_beyond() -> None:
    wide = [AtBudget("s", 20.0, (1.30, 1.40)), AtBudget("m", 60.0, (1.15, 1.35))]
    found = sooner(SLOW, wide, 60.0, Direction.LOWER)
    assert found and found.low == 0 and found.beyond and found.high == pytest.approx(3.0)
    assert "(beyond the longest budget measured to at least 3)" in found.words
    exact = sooner(SLOW, fast((20, 1.40), (60, 1.20)), 60.0, Direction.LOWER)
    assert exact and not exact.beyond and "at least" not in exact.words
    slower = sooner(SLOW, fast((20, 1.9), (60, 1.5), (180, 1.3)), 60.0, Direction.LOWER)
    assert slower and slower.words == "what the start has after 60 s takes 180 s, 3 × as long"
    there = sooner(SLOW, fast((20, 1.4)), 20.0, Direction.LOWER)
    assert (
        there
        and there.words == "what the start has after 20 s is there after 20 s, the shortest budget that was measured"
    )


def test_the_interval_of_a_mean_is_students() -> None:
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx(4.302653 / 3**0.5)
    assert half_width([1.0, 2.0]) == pytest.approx(12.706205 / 2)
    assert half_width([1.0]) is None and AtBudget("s", 20.0, (1.5, 1.5)).half == 0


@pytest.mark.parametrize(
    ("asked", "message"), [("model.py", "is not like"), ("model.py:depth=3", "is not like"), ("m.py:A=x", "no number")]
)
def test_a_senseless_constant_is_refused_in_words(asked: str, message: str) -> None:
    assert parse_constants(["model.py:DEPTH=12", "model.py:RATE=0.5"]) == {"model.py": {"DEPTH": 12, "RATE": 0.5}}
    with pytest.raises(ValueError, match=message):
        parse_constants([asked])


def learn(experiment: Experiment) -> None:
    """Curves as of a candidate that only makes twice as many steps."""
    for trial in experiment.trials.all():
        steps = np.arange(200 if trial.arm == "candidate" else 100, dtype="<i8")
        series = Series.objects.create(trial=trial, generation=1, metric="loss", next_seq=len(steps))
        values = (3 - steps / 100).astype("<f8")
        Chunk.objects.create(
            series=series, first_seq=0, count=len(steps), steps=steps.tobytes(), values=values.tobytes()
        )


@pytest.mark.django_db
def test_the_champion_is_measured_at_other_budgets_and_sizes(
    thread: Thread, world: World, reviewer: User, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    project = thread.project
    client.force_login(reviewer)
    assert "Nothing was measured" in client.get("/p/question/worth/?part=time").content.decode()
    with pytest.raises(NotMergeable, match="still stands on the start"):
        ask(project, "long", 4)
    request: MergeRequest = world.gain(thread, "alpha")
    request.approve(request.commit, reviewer)
    project.refresh_from_db()
    call_command("transfer", project.name, preset=["quick", "long"], pairs=3)
    assert "2 measurements wait" in capsys.readouterr().out
    deeper = ask(project, "long", 2, {"model.py": {"DELTA": 9}})
    assert constants(project, deeper.candidate_commit) == {"ALPHA": 2, "BETA": 1, "GAMMA": 1, "DELTA": 9}
    assert constants(project, deeper.baseline_commit)["ALPHA"] == 1
    assert ask(project, "long", 2, {"model.py": {"DELTA": 9}}) == deeper, "asking twice is asking once"
    world.run()
    advance_project_until_idle(project.pk)
    asked = Experiment.objects.filter(purpose=Experiment.Purpose.TRANSFER)
    learn(asked[0])
    assert not asked.running().exists() and len(set(asked.values_list("confirm_split", flat=True))) == 1
    rows = over_time(project)
    assert [(row.preset, len(row.scores)) for row in rows["champion"]] == [("quick", 3), ("long", 3)]
    call_command("transfer", project.name, json=True)
    found = json.loads(capsys.readouterr().out)
    assert [row["at_least"] for row in found["sooner"]["champion"]] == [True, True] and len(found["transfers"]) == 3
    split = found["transfers"][0]["split"]
    assert split["candidate_steps"] == 199 and split["baseline_steps"] == 99 and split["pairs"] == 3
    assert split["throughput"]["mean"] > 0 and split["modelling"]["mean"] == pytest.approx(0)
    assert found["transfers"][2]["label"] == "the champion against the start at long, DELTA=9"
    page = client.get("/p/question/worth/?part=time").content.decode()
    assert "at least" in page
    assert 'class="quality"' in page and "the champion against the start at long, DELTA=9" in page
    for bad, message in (({"preset": ["huge"]}, "no preset 'huge'"), ({"rival": "x", "preset": ["long"]}, "no rival"),
                         ({"preset": ["long"], "set": ["nothing.py:A=1"]}, "there is no nothing.py")):  # fmt: skip
        with pytest.raises(CommandError, match=message):
            call_command("transfer", project.name, **bad)


@pytest.mark.django_db
def test_only_what_was_asked_for_runs_in_a_finished_project(project: Project) -> None:
    for state in (Project.State.FINISHED, Project.State.ACTIVE):
        project.finish() if state == Project.State.FINISHED else project.resume()
        project.measure_only("asked for")
        assert project.state == Project.State.EXHAUSTED
        project.back_to(state)
    assert project.state == Project.State.PAUSED, "a search goes on when somebody wants it to"
