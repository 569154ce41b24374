"""What stops the loop, and how it shows: budgets, pauses, a failing step, a thread that another worker holds."""

from __future__ import annotations

import os
import subprocess
from datetime import timedelta

import pytest
from django.utils import timezone

from research.loop.advance import HOST, advance_project_until_idle, advance_until_idle, let_go_of_the_dead
from research.models import Experiment, Lesson, MergeRequest, Project, Thread, Trial, Verdict
from tests.cast import World, focus, go, repository_of, running

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("swept", [True, False])
def test_a_spent_budget_begins_nothing_new_and_what_runs_ends_at_its_next_look(
    thread: Thread, world: World, swept: bool
) -> None:
    """The project is told of it by a sweep or, where that comes too late, by the look itself."""
    Project.objects.update(max_trials=2)
    focus(thread, "alpha")
    go(thread)
    assert world.run() == 2
    if swept:
        advance_project_until_idle(thread.project_id)
    go(thread)
    project, verdict = Project.objects.get(), Verdict.objects.get()
    assert (project.state, project.state_reason) == ("exhausted", "the budget of 2 trials is spent")
    assert verdict.kind == "inconclusive" and verdict.reason.endswith("stopped, the budget of 2 trials is spent")
    assert Lesson.objects.count() == 1 and not MergeRequest.objects.exists()
    assert Experiment.objects.count() == 1 and running(thread) is None
    assert world.run() == 0


def test_a_look_that_settles_it_counts_although_the_budget_is_spent(thread: Thread, world: World) -> None:
    world.gains["ALPHA"] = 0.05
    focus(thread, "alpha")
    go(thread)
    world.run(), go(thread)
    planned = Trial.objects.count()
    Project.objects.update(max_trials=planned)
    assert planned > 2 and world.until_verdict(thread).kind == "improved"
    assert Trial.objects.count() == planned, "what was planned is measured, nothing is added"


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("max_device_seconds", 1.5, "the budget of 1.5 device-seconds is spent"),
        ("max_wall_seconds", 60.0, "the budget of 1 minutes is spent"),
    ],
)
def test_every_budget_is_kept(thread: Thread, world: World, field: str, value: float, reason: str) -> None:
    focus(thread, "alpha")
    go(thread)
    world.run(pairs=1)
    Project.objects.update(wall_seconds=61, **{field: value})
    advance_project_until_idle(thread.project_id)
    assert Project.objects.get().state_reason == reason


def test_a_paused_project_rests_and_goes_on_where_it_was(thread: Thread, world: World) -> None:
    focus(thread, "alpha")
    go(thread)
    thread.project.pause("a person looks")
    assert world.run() == 0 and go(thread) == 0
    Project.objects.get().resume()
    assert world.run() == 2 and go(thread) > 0


def test_a_paused_thread_does_not_advance(thread: Thread, world: World) -> None:
    thread.pause()
    assert go(thread) == 0
    thread.resume()
    assert go(thread) > 0


def test_a_failing_step_halts_the_thread_visibly_with_its_traceback(
    thread: Thread, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    repository = repository_of(thread.project)
    hidden = repository.path.with_name("hidden")
    repository.path.rename(hidden)
    advance_until_idle(thread.pk)
    thread.refresh_from_db()
    assert thread.state == Thread.State.HALTED and thread.held_by == ""
    assert thread.note.startswith("Traceback") and "GitError" in thread.note
    assert "halted" in caplog.text
    assert advance_until_idle(thread.pk) == 0
    hidden.rename(repository.path)
    thread.resume()
    assert go(thread) > 0
    thread.refresh_from_db()
    assert thread.state == Thread.State.ACTIVE


def test_a_halted_thread_leaves_the_others_running(thread: Thread, world: World) -> None:
    other = Thread.objects.create(project=thread.project, number=2, researcher="catalogue", head=thread.head)
    Thread.objects.filter(pk=thread.pk).update(researcher="nobody")
    advance_until_idle(thread.pk)
    thread.refresh_from_db()
    assert thread.state == Thread.State.HALTED and "KeyError" in thread.note
    assert go(other) > 0


def test_only_one_worker_advances_a_thread_at_a_time(
    thread: Thread, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("research.loop.advance.HOLD_PATIENCE", 0.1)
    assert thread.hold("another worker")
    assert go(thread) == 0
    Thread.objects.filter(pk=thread.pk).update(held_until=timezone.now() - timedelta(seconds=1))
    assert go(thread) > 0, "the hold of a dead worker ends by itself"


def test_a_thread_held_by_a_killed_process_of_this_host_is_free_at_the_next_sweep(
    thread: Thread, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("research.loop.advance.HOLD_PATIENCE", 0.1)
    child = subprocess.Popen(["true"])
    child.wait()
    assert thread.hold(f"{HOST}-{child.pid}-1")
    assert go(thread) == 0
    let_go_of_the_dead()
    thread.refresh_from_db()
    assert thread.held_by == "" and go(thread) > 0
    for living in (f"{HOST}-{os.getpid()}-1", "another host-1-1"):
        assert thread.hold(living)
        let_go_of_the_dead()
        thread.refresh_from_db()
        assert thread.held_by == living
        thread.let_go(living)


def test_a_thread_with_nothing_left_to_propose_finishes_and_says_why(thread: Thread, world: World) -> None:
    focus(thread, "nothing at all")
    go(thread)
    thread.refresh_from_db()
    assert thread.state == Thread.State.FINISHED and "loosen the steering" in thread.note
    thread.resume()
    focus(thread, "alpha")
    assert go(thread) > 0


def test_a_thread_with_nothing_to_propose_waits_while_another_one_may_move_main(thread: Thread, world: World) -> None:
    other = Thread.objects.create(project=thread.project, number=2, researcher="catalogue", head=thread.head)
    focus(other, "stubborn")
    world.gains["EXTRA"] = 0.05
    go(other)
    focus(thread, "stubborn")
    assert go(thread) == 0
    thread.refresh_from_db()
    assert thread.state == Thread.State.ACTIVE
    assert world.until_verdict(other).kind == "improved"
    go(other)
    go(thread)
    other.merge_requests.get().approve(other.merge_requests.get().commit)
    go(thread)
    thread.refresh_from_db()
    assert thread.head == Project.objects.get().champion


def test_a_cancelled_experiment_gets_no_verdict(thread: Thread, world: World) -> None:
    focus(thread, "alpha")
    go(thread)
    experiment = running(thread)
    assert experiment
    leases = Trial.objects.claim_pair(world.machine, "player")
    experiment.cancel()
    assert all(world.finish(lease) for lease in leases)
    go(thread)
    assert not Verdict.objects.filter(experiment=experiment).exists()
