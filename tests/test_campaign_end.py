"""The end of a campaign: closing pairs, then the ablation that was asked for; a stopped one goes on where it was."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from rich.text import Text

from research.loop.advance import advance_project_until_idle
from research.management.commands import campaign
from research.management.progress import Progress
from research.management.summary import summary
from research.models import Experiment, Project, Thread, Trial
from runners.supervisor import Supervisor
from tests.cast import World, focus, go
from tests.test_loop_champion import land

pytestmark = pytest.mark.django_db


class Play(Progress):
    """Shows progress, and lets control and machine have their turn, which are processes of their own elsewhere."""

    def __init__(self, project: Project, world: World, stopping: threading.Event, stop_in: str = "") -> None:
        super().__init__(project, 60)
        self.world, self.stopping, self.stop_in = world, stopping, stop_in
        self.said: list[str] = []

    def show(self, phase: str) -> None:
        super().show(phase)
        advance_project_until_idle(self.project.pk)
        self.world.run(pairs=2)
        if phase == self.stop_in:
            self.stopping.set()

    def say(self, line: str | Text) -> None:
        super().say(line)
        self.said = [*getattr(self, "said", []), str(line)]


def finish(project: Project, world: World, folder: Path, stop_in: str = "") -> Play:
    stopping = threading.Event()
    play = Play(project, world, stopping, stop_in)
    campaign.Run(project, Supervisor(folder), stopping, play).whole(0, ablate=True)
    return play


def test_an_ablation_is_measured_after_the_closing_pairs_and_goes_on_after_a_stop(
    thread: Thread, world: World, reviewer: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign, "TICK_SECONDS", 0.0)
    land(world, thread, reviewer, "alpha", "beta")
    project = Project.objects.get()
    with pytest.raises(campaign.Stopped):
        finish(project, world, tmp_path, stop_in="ablation")
    running = Experiment.objects.running()
    assert running.filter(purpose=Experiment.Purpose.ABLATION).exists()
    finish(project, world, tmp_path)
    said = summary(project)
    assert [row["label"] for row in said["ablation"]] == ["alpha", "beta"]
    assert [row["loss"]["pairs"] for row in said["ablation"]] == [6, 6] and not running.exists()
    assert len(said["closing_pairs"]) == project.sizes.seeds == 5 and project.state == Project.State.FINISHED
    ablations = Experiment.objects.filter(purpose=Experiment.Purpose.ABLATION)
    assert ablations.count() == 2 and sum(each.trials.count() for each in ablations) == 24, "nothing was run twice"


def test_a_campaign_without_a_merge_has_nothing_to_leave_out(
    project: Project, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign, "TICK_SECONDS", 0.0)
    play = finish(project, world, tmp_path)
    assert "no ablation: main still stands on the start: there is no change to leave out" in play.said
    assert summary(project)["ablation"] is None


def test_a_sitting_ends_in_time_and_cuts_nothing_off(
    thread: Thread, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign, "TICK_SECONDS", 0.0)
    project = thread.project
    project.exhaust("the campaign's time is over")
    run = campaign.Run(project, Supervisor(tmp_path), threading.Event(), Play(project, world, threading.Event()))
    run.leave_by = time.monotonic() + 60
    monkeypatch.setattr(Play, "show", lambda self, phase: self.world.run(pairs=1))
    assert not run._tick(lambda: False, "search"), "a minute is enough for another pair"
    run.leave_by = time.monotonic() + run.pair_seconds()
    with pytest.raises(campaign.SittingOver, match="nothing was cut off"):
        run._tick(lambda: False, "search")
    assert project.state == Project.State.PAUSED and not Trial.objects.claim_pair(world.machine, "player")
    project.resume()
    assert project.is_running


def test_a_sitting_waits_for_the_pair_that_runs_and_says_what_it_had_to_cut_off(
    thread: Thread, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign, "TICK_SECONDS", 0.0)
    focus(thread, "alpha")
    go(thread)
    leases = Trial.objects.claim_pair(world.machine, "player")
    run = campaign.Run(
        thread.project, Supervisor(tmp_path), threading.Event(), Play(thread.project, world, threading.Event())
    )
    monkeypatch.setattr(Play, "show", lambda self, phase: phase == "leaving" and world.finish(leases.pop()))
    with pytest.raises(campaign.SittingOver) as over:
        run.leave(time.monotonic() + 60)
    assert over.value.running == 0 and leases == []
    go(thread)
    thread.project.resume()
    world.run(pairs=1)
    go(thread)
    assert Trial.objects.claim_pair(world.machine, "player")
    monkeypatch.setattr(Play, "show", lambda self, phase: None)
    with pytest.raises(campaign.SittingOver, match="2 trials were cut off"):
        run.leave(time.monotonic() - 1)


def test_a_sitting_begins_with_its_process() -> None:
    began = campaign.process_began()
    assert began < time.monotonic() and abs(campaign.process_began() - began) < 0.1
    time.sleep(0.05)
    assert abs(campaign.process_began() - began) < 0.1
