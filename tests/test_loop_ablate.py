"""What each change of the champion is worth: it is built without it, by its recipe or by git, and measured."""

from __future__ import annotations

import json

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from research.loop import ablate
from research.models import (
    Ablation,
    AblationPart,
    AuditEntry,
    Event,
    Experiment,
    Idea,
    NotAllowed,
    NotMergeable,
    Thread,
)
from tests.cast import World, constants, repository_of
from tests.stage import Stage
from tests.test_loop_again import assert_idempotent
from tests.test_loop_champion import land, measure

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def played(stage: Stage) -> Stage:
    stage.world.gains["ALPHA"] = 0.08
    return stage.gain("alpha")


@pytest.fixture(autouse=True)
def worth(world: World) -> None:
    """ALPHA is worth more than others."""
    world.gains["ALPHA"] = 0.08


@pytest.fixture
def merged(thread: Thread, world: World, reviewer: User) -> Thread:
    """ALPHA and BETA have landed on main."""
    land(world, thread, reviewer, "alpha", "beta")
    return thread


def test_the_champion_is_measured_without_each_of_its_changes(merged: Thread, world: World, member: User) -> None:
    project = merged.project
    ablation = Ablation.ask(project, member, pairs=4)
    assert Ablation.ask(project, member, pairs=4) == ablation, "asking again is the same"
    assert AuditEntry.objects.get(action="ablate").actor == member
    measure(world, project)
    ablation.refresh_from_db()
    parts = list(ablation.parts.order_by("number"))
    for part, missing in zip(parts, ("ALPHA", "BETA"), strict=True):
        values = constants(project, part.commit)
        assert {name for name in ("ALPHA", "BETA") if values[name] == 1.0} == {missing}
        assert repository_of(project).resolve(part.ref) == part.commit
        assert part.experiment and part.experiment.baseline_commit == ablation.champion
    rows = ablation.rows()
    assert ablation.ended and [row.label for row in rows] == ["alpha", "beta"], "the most valuable first"
    for row, worth in zip(rows, (0.08, 0.05), strict=True):
        assert row.loss.pairs == 4 and abs((row.loss.effect or 0) - worth) < 0.004 and row.sign == 1
    told = Event.objects.filter(kind=Event.Kind.ABLATION).last()
    assert told and told.text.endswith("2 are shown to be worth something: alpha, beta")


def test_a_change_without_a_recipe_is_undone_by_git(merged: Thread, world: World) -> None:
    Idea.objects.filter(candidate__merge_request__isnull=False).update(steps=[])
    merged.candidates.update(recipe=[])
    ablation = Ablation.ask(merged.project, pairs=4)
    measure(world, merged.project)
    parts = list(ablation.parts.order_by("number"))
    assert [part.label for part in parts] == ["another ALPHA", "another BETA"]
    values = constants(merged.project, parts[0].commit)
    assert (values["ALPHA"], values["BETA"]) == (1.0, 2.0)


def test_a_change_that_cannot_be_left_out_says_why_and_the_rest_is_measured(
    thread: Thread, world: World, reviewer: User
) -> None:
    world.gains["EXTRA"] = 0.05
    land(world, thread, reviewer, "alpha", "gamma")
    Idea.objects.filter(candidate__merge_request__isnull=False).update(steps=[])
    thread.candidates.update(recipe=[])
    ablation = Ablation.ask(thread.project, pairs=4)
    measure(world, thread.project)
    ablation.refresh_from_db()
    below, top = ablation.parts.order_by("number")
    assert "cannot be left out alone: conflict in train.py" in below.refusal and not below.experiment
    assert not top.refusal and ablation.ended
    rows = {row.label: row for row in ablation.rows()}
    assert rows["another ALPHA"].refusal and rows["another GAMMA"].loss.pairs == 4


def test_an_ablation_goes_on_after_a_crash_anywhere(
    merged: Thread, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ablation = Ablation.ask(merged.project, pairs=2)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for owner, name in (
        (AblationPart, "built"),
        (AblationPart, "measured_by"),
        (Experiment, "plan"),
        (Ablation, "end"),
    ):
        with monkeypatch.context() as crash, pytest.raises(KeyboardInterrupt):
            crash.setattr(owner, name, die)
            ablate.step(merged.project)
            world.run()
            ablate.step(merged.project)
    measure(world, merged.project)
    ablation.refresh_from_db()
    assert ablation.ended and [row.loss.pairs for row in ablation.rows()] == [2, 2]
    assert Experiment.objects.filter(purpose=Experiment.Purpose.ABLATION).count() == 2


def test_steps_of_an_ablation_change_nothing_the_second_time(merged: Thread, world: World) -> None:
    Ablation.ask(merged.project, pairs=2)
    assert_idempotent(lambda: ablate.step(merged.project))
    world.run()
    assert_idempotent(lambda: ablate.step(merged.project))


def test_there_must_be_something_to_leave_out_and_somebody_who_may_ask(
    thread: Thread, world: World, outsider: User, member: User
) -> None:
    with pytest.raises(NotAllowed, match="only a member"):
        Ablation.ask(thread.project, outsider)
    with pytest.raises(NotMergeable, match="main still stands on the start"):
        Ablation.ask(thread.project, member)
    with pytest.raises(NotMergeable, match="2 to 24 pairs"):
        Ablation.ask(thread.project, member, pairs=1)


def test_a_finished_project_measures_nothing_and_shows_what_it_has(merged: Thread, world: World, member: User) -> None:
    ablation = Ablation.ask(merged.project, member, pairs=2)
    merged.project.finish(member)
    assert Ablation.ask(merged.project, member, pairs=2) == ablation
    with pytest.raises(NotMergeable, match="resume it first"):
        Ablation.ask(merged.project, member, pairs=4)


def test_the_command_asks_shows_progress_and_then_the_rows(
    merged: Thread, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    project = merged.project
    call_command("ablate", project.name, pairs=2)
    assert "the running lab measures it" in capsys.readouterr().out
    measure(world, project)
    call_command("ablate", project.name, pairs=2)
    said = capsys.readouterr().out.splitlines()
    assert "alpha" in said[1] and "2 of 2 pairs" in said[1]
    found = json.loads(said[-1])
    assert found["ended"] and [row["label"] for row in found["rows"]] == ["alpha", "beta"]
    with pytest.raises(CommandError, match="no project named 'other'"):
        call_command("ablate", "other")
    with pytest.raises(CommandError, match="no user 'nobody'"):
        call_command("ablate", project.name, by="nobody")
