"""Many problems from the first noise pair to the closing pairs: two threads, merges by policy, records, a move."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from django.core.management import call_command

from research.api.books import facts_of, standing_of
from research.api.brief import brief
from research.loop.begin import spread
from research.loop.headline import headline_of
from research.management.commands import campaign
from research.management.moving.unpacking import unpack
from research.management.progress import Progress
from research.management.summary import summary
from research.models import Experiment, MergeRequest, NoiseFloor, Project, Thread
from research.models.pace import expected_seconds, pair_seconds
from runners.supervisor import Supervisor
from tests.cast import focus, go, step
from tests.problem_play import Bench, begin_problems
from tests.test_problems_pages import merged, near

pytestmark = pytest.mark.django_db
Purpose = Experiment.Purpose


class Play(Progress):
    """Lets the machine have its turn, which is a process of its own elsewhere."""

    def __init__(self, project: Project, bench: Bench) -> None:
        super().__init__(project, 60)
        self.bench = bench

    def show(self, phase: str) -> None:
        super().show(phase)
        self.bench.run(pairs=2)


@pytest.mark.slow
def test_two_threads_take_a_project_from_proposals_to_merges_and_its_closing_pairs(
    many: Project, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    NoiseFloor.objects.all().delete()
    project = begin_problems("two", threads=2, auto_approve=True)
    spread(project)
    bench.rounds(project, 40)
    project.refresh_from_db()
    assert NoiseFloor.objects.get().trials >= 12
    headline = headline_of(project)
    assert headline is not None and near(headline.ratios["big_gemm"], 0.4), headline.ratios
    assert near(headline.ratios["layer_norm"], 0.7)
    threads = list(project.threads.order_by("number"))
    touched = [{name for row in thread.experiments.all() for name in row.problems} for thread in threads]
    assert touched[0] <= {"big_gemm", "small_gemm"} and touched[1] <= {"layer_norm", "rms_norm"}
    assert {thread.state for thread in threads} == {Thread.State.FINISHED}
    rows = project.experiments.filter(candidate__isnull=False).select_related("candidate__diff")
    asked = [row.candidate.diff.patch for row in rows if row.candidate]
    assert len(asked) == len(set(asked)), "no question was measured twice"
    assert not project.merge_requests.exclude(state=MergeRequest.State.MERGED).exists()

    monkeypatch.setattr(campaign, "TICK_SECONDS", 0.0)
    run = campaign.Run(project, Supervisor(tmp_path), threading.Event(), Play(project, bench))
    run.whole(0)
    closing = project.experiments.get(purpose=Purpose.CLOSING)
    improved = [name for name, ratio in headline.ratios.items() if ratio < 1]
    assert closing.problems == sorted(improved) and len(closing.scores()) == project.sizes.seeds == 4
    said = summary(Project.objects.get(pk=project.pk))
    assert near(said["start_score"], 1.0) and said["problems_improved"] == len(improved)
    assert near(said["champion_score"] ** (len(improved) / 4), said["mean_ratio"])


def test_a_record_and_a_move_keep_what_was_measured(
    many: Project, bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thread = many.threads.get()
    second = Thread.objects.create(project=many, number=2, researcher="catalogue", head=many.start_commit)
    other = bench.gain(second, "big_gemm_tile")
    focus(second, "nothing")
    project = merged(bench, thread, "layer_norm_tile")
    assert step(second) == "settle"
    other.refresh_from_db()
    other.approve(other.commit)
    project.refresh_from_db()
    before = headline_of(project)
    call_command("record", project.name, out=tmp_path / "record.json")
    capsys.readouterr()
    call_command("pack", project.name, out=tmp_path / "packed.zip")
    project.remove()
    moved = unpack(tmp_path / "packed.zip")
    assert moved.problems == project.problems and headline_of(moved) == before
    (carried,) = moved.candidates.exclude(carried_from=None)
    assert carried.carried_from is not None and carried.carried_from.project == moved
    measured = moved.experiments.filter(candidate__isnull=False).order_by("number")
    assert [row.problems for row in measured] == [["big_gemm"], ["layer_norm"]]
    assert json.loads((tmp_path / "record.json").read_text())


def test_screens_of_a_head_share_a_baseline_of_the_same_problem_alone(
    many: Project, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = begin_problems("apart", threads=3, preset="apart")
    names = ("rms_norm_fuse", "rms_norm_tile", "big_gemm_tile")
    for thread, name in zip(project.threads.order_by("number"), names, strict=True):
        focus(thread, name)
        go(thread)
    experiments = list(project.experiments.filter(purpose=Purpose.COMPARE).order_by("pk"))
    assert [row.problems for row in experiments] == [["rms_norm"], ["rms_norm"], ["big_gemm"]]
    bench.run()
    shared = [
        [one["kind"] for one in row.trials.get(stage="screen", arm="baseline").result.observations]
        for row in experiments
    ]
    assert shared == [[], ["shared_baseline"], []]


def test_a_pair_of_more_problems_takes_longer(many: Project, bench: Bench) -> None:
    project = merged(bench, many.threads.get(), "layer_norm_tile", "big_gemm_tile")
    assert pair_seconds(project) == 1.5 and pair_seconds(project, problems=4) == 3.0, "the budget is shared"
    experiment = Experiment.objects.create(
        key="both", project=project, purpose=Purpose.CLOSING, number=project.next_experiment_number(),
        rule=project.rule, baseline_commit=project.start_commit, candidate_commit=project.champion,
        problems=["big_gemm", "layer_norm"],
    )  # fmt: skip
    experiment.plan("closing", 1)
    assert expected_seconds(experiment.trials.first()) == 2.0  # type: ignore[arg-type]


def test_an_agent_reads_which_problems_there_are_and_no_mean_of_their_scores(many: Project, bench: Bench) -> None:
    assert standing_of(many, many.start_commit).score is None
    said = brief(many, facts_of(many))
    assert "The tree holds 4 problems, a folder each: big_gemm, layer_norm, rms_norm, small_gemm." in said
