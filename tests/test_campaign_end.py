"""The end of a campaign: closing pairs, then the ablation that was asked for; a stopped one goes on where it was."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from rich.text import Text

from research.loop.advance import advance_project_until_idle
from research.management.commands import campaign
from research.management.progress import Progress
from research.management.summary import summary
from research.models import Experiment, Project, Thread
from runners.supervisor import Supervisor
from tests.cast import World
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
    assert len(said["closing_pairs"]) == campaign.CLOSING_PAIRS and project.state == Project.State.FINISHED
    ablations = Experiment.objects.filter(purpose=Experiment.Purpose.ABLATION)
    assert ablations.count() == 2 and sum(each.trials.count() for each in ablations) == 24, "nothing was run twice"


def test_a_campaign_without_a_merge_has_nothing_to_leave_out(
    project: Project, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign, "TICK_SECONDS", 0.0)
    play = finish(project, world, tmp_path)
    assert "no ablation: main still stands on the start: there is no change to leave out" in play.said
    assert summary(project)["ablation"] is None
