"""The worker of a GPU on a tiny model without one: real sandboxes, judges, rows; two slots, and what may go wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from benchmarks.contract import Assignment, Failure, Gate, Outcome
from benchmarks.data import data_folder, use
from benchmarks.nanochat import evaluate
from research.loop.begin import Budget, begin_project
from research.models import Experiment, Lease, Machine, Project, Result, Series, Trial
from research.repository import Repository
from runners.gpu_worker import GpuWorker
from runners.lab import Lab
from runners.process_tree import descendants
from runners.sandbox import Sandbox
from runners.slot import Slot
from tests import token_play as play
from tests.sandbox_play import need_full_sandbox

pytestmark = [pytest.mark.torch, pytest.mark.django_db(transaction=True)]

GIB = 1 << 30
WARM, TIMED, FORWARD = 1.0, 0.5, 0.02


@dataclass
class Seen:
    """One execution of a trial: moments of time.monotonic."""

    commit: str
    box: Sandbox
    beside: bool
    began: float
    clock: float = 0.0
    trained: float = 0.0
    over: float = 0.0
    neighbours: int = 0  # processes in other sandboxes when its clock started

    @property
    def timed(self) -> tuple[float, float]:
        return self.clock, self.trained or self.over


class Watched(evaluate.Evaluator):
    """The evaluator, as if its trials held 8 of 80 GiB of a device. Notes when each phase of a trial began."""

    seen: list[Seen] = []
    held_bytes = 8.0 * GIB
    short_of_memory: set[str] = set()  # commits that run out of it beside another trial
    fails_once = False  # at the end of the first trial, unforeseen

    def run(
        self, task: Assignment, box: Sandbox, sink: Any, gate: Gate = lambda: None, cpu: int | None = None,
        keep_weights: Path | None = None, *, trained: Gate = lambda: None, beside: bool = False,
    ) -> Outcome:  # fmt: skip
        row = Seen(task.commit, box, beside, time.monotonic())
        self.seen.append(row)

        def clock() -> None:
            gate()
            row.clock = time.monotonic()
            others = {seen.box for seen in self.seen} - {box}
            row.neighbours = sum(len(descendants(other.zygote_pid)) - 1 for other in others if not other._closed)

        def over() -> None:
            row.trained = time.monotonic()
            trained()

        try:
            outcome = super().run(task, box, sink, clock, cpu, keep_weights, trained=over, beside=beside)
        finally:
            row.over = time.monotonic()
        outcome.metrics["device_memory_bytes"] = self.held_bytes
        if task.commit in self.short_of_memory and (beside or any(not other.over for other in self.seen)):
            outcome.score, outcome.failure = None, Failure("out_of_memory", "the device was full")
        if self.fails_once and row is self.seen[0]:
            raise RuntimeError("nobody foresaw this")
        return outcome

    def device_memory(self, task: Assignment, box: Sandbox) -> int:
        return 80 * GIB


WARM_UP = """
    import pathlib, time
    pathlib.Path("/cache/kernel").write_bytes(b"compiled")
    time.sleep({warm})
    text = harness.start_clock()
    time.sleep({timed})
"""


def tree(warm: float = WARM, timed: float = TIMED, forward: str = f"time.sleep({FORWARD})") -> dict[str, bytes]:
    """A table that takes its time to warm up, to train and to answer."""
    files = play.table(change=f"import time\n{forward}")
    train = files["train.py"].replace("    text = harness.start_clock()", WARM_UP.format(warm=warm, timed=timed))
    return {"model.py": files["model.py"].encode(), "train.py": train.encode()}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokens") / "data"
    play.write_data(folder)
    manifest = json.loads((folder / "manifest.json").read_text()) | {"vocabulary": play.VOCABULARY}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def tiny(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose arms run one after another, as on a GPU, so that its screens share their baseline."""
    need_full_sandbox()
    monkeypatch.setenv("LAB_DATA", str(tmp_path))
    monkeypatch.setattr(settings, "DATA_DIR", tmp_path)
    prepared = data_folder("nanochat") / "made"
    shutil.copytree(data, prepared)
    use(prepared, play.TINY.data, "0" * 64)
    apart = lambda row: replace(row.project.contract.preset("gpu-tiny"), side_by_side=False)  # noqa: E731
    monkeypatch.setattr(Trial, "sizes", property(apart))
    alone = lambda project: replace(project.contract.preset("gpu-tiny"), side_by_side=False)  # noqa: E731
    monkeypatch.setattr(Project, "sizes", property(alone))
    monkeypatch.setattr(evaluate, "Evaluator", Watched)
    monkeypatch.setattr(Watched, "seen", [])
    return begin_project("tiny", "nanochat", "gpu-tiny", "vanilla", [], Budget(), auto_approve=False)


def commit(project: Project, files: dict[str, bytes]) -> str:
    repository = Repository(project.repository_path)
    return repository.commit_files(files, project.start_commit, "a play", datetime(2026, 1, 1, tzinfo=UTC))


def screen(project: Project, number: int, baseline: str, candidate: str, pairs: int = 1) -> Experiment:
    experiment = Experiment.objects.create(
        key=f"play-{number}", project=project, number=number, rule=project.rule, baseline_commit=baseline,
        candidate_commit=candidate,
    )  # fmt: skip
    experiment.plan("screen", pairs)
    return experiment


class Running:
    """A worker in a thread, that of one GPU to the lab."""

    def __init__(self) -> None:
        self.lab = Lab("one-gpu", "gpu", 1, {"devices": ["cpu"]})
        self.lab.machine.attach(3, [])
        self.worker = GpuWorker(self.lab, [Slot(6, None), Slot(7, None)])
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        self.worker.run()
        self.worker._pool.shutdown()
        connection.close()

    def until(self, there: Any, seconds: float = 180.0) -> None:
        ends = time.monotonic() + seconds
        while not there():
            assert time.monotonic() < ends, [str(trial) + trial.state + trial.note for trial in Trial.objects.all()]
            assert self.thread.is_alive()
            time.sleep(0.02)

    def finish(self) -> None:
        self.thread.start()
        self.until(lambda: not Trial.objects.unfinished().exists())

    def stop(self) -> None:
        self.worker.stop()
        if self.thread.ident:
            self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture
def running(tiny: Project) -> Iterator[Running]:
    running = Running()
    yield running
    running.stop()


def known(project: Project, files: dict[str, bytes] | None = None) -> str:
    """A commit whose memory is known: a trial of it was scored by a worker before."""
    name = commit(project, files or tree())
    machine = Machine.objects.get(name="one-gpu")
    number = Experiment.objects.count() + 100
    experiment = screen(project, number, name, name)
    for lease in Trial.objects.claim_pair(machine, "before"):
        lease.trial.finish(
            lease, machine=machine, score=1.0, isolation_level=3, machine_class="gpu", device_seconds=1.0,
            metrics={"device_memory_bytes": Watched.held_bytes}, seconds={"total_wall": 1.0, "train_wall": 0.5},
        )  # fmt: skip
    experiment.end()
    return name


def meet(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def assert_alone_when_timed(rows: list[Seen]) -> None:
    for row in rows:
        assert row.neighbours == 0
        if row.clock:
            beside = [other for other in rows if other is not row and meet(row.timed, (other.began, other.over))]
            assert all(other.over <= row.clock or other.began >= row.timed[1] for other in beside)


def test_one_trial_is_judged_while_the_next_warms_up_and_every_second_is_told_once(
    tiny: Project, running: Running
) -> None:
    one, two = known(tiny), known(tiny, tree(warm=WARM + 0.01))
    began = timezone.now()
    first = screen(tiny, 1, one, two, pairs=2)
    second = screen(tiny, 2, one, two, pairs=1)
    running.finish()
    rows = Watched.seen
    assert len(first.scores()) == 2 and len(second.scores()) == 1
    assert len(rows) == 5, "a baseline is shared"
    assert_alone_when_timed(rows)
    together = [row.beside and row.began < before.over for before, row in pairwise(rows)]
    assert together[1:] == [True] * 3, "at the first one the other slot was still being started"
    results = [trial.result for trial in Trial.objects.filter(created__gte=began) if trial.result.device_seconds]
    assert [result.failure for result in results] == [""] * 5
    told = sum(result.device_seconds - result.seconds.get("compiled_ahead", 0.0) for result in results)
    stood_still = sum(max(0.0, row.began - before.over) for before, row in pairwise(rows))
    assert told == pytest.approx(rows[-1].over - rows[0].began - stood_still, abs=0.5)
    assert sum("overlapped" in result.seconds for result in results) == sum(together)
    leases = Lease.objects.filter(trial__created__gte=began)
    assert not leases.open().exists() and max([gap.seconds for gap in leases.idle_gaps()], default=0) < 0.1


@pytest.mark.slow
def test_what_nobody_has_seen_run_and_what_would_not_fit_twice_warm_up_alone(
    tiny: Project, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, plain = known(tiny, tree(forward=SLOW)), tree()
    plain["train.py"] = plain["train.py"].replace(b'pathlib.Path("/cache/kernel").write_bytes(b"compiled")', b"")
    screen(tiny, 1, one, commit(tiny, plain))
    running.worker.warm("nanochat")
    running.finish()
    assert [row.beside for row in Watched.seen] == [False, False]
    monkeypatch.setattr(Watched, "held_bytes", 55.0 * GIB)
    Result.objects.update(metrics={"device_memory_bytes": 55.0 * GIB})
    screen(tiny, 2, one, one)
    screen(tiny, 3, one, one)
    running.until(lambda: not Trial.objects.unfinished().exists())
    assert [row.beside for row in Watched.seen] == [False] * 4, "two of six are shared"


@pytest.mark.slow
def test_what_runs_out_of_memory_beside_another_runs_again_alone(
    tiny: Project, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, short = known(tiny), known(tiny, tree(forward="time.sleep(0.3)"))
    monkeypatch.setattr(Watched, "short_of_memory", {short})
    first, second = screen(tiny, 1, short, one), screen(tiny, 2, one, short)
    running.worker.warm("nanochat")
    running.finish()
    assert_alone_when_timed(Watched.seen)
    assert len(first.scores()) == len(second.scores()) == 1
    for trial in Trial.objects.filter(commit=short, experiment__in=(first, second)):
        result = trial.result
        assert (trial.generation, result.failure, result.generation) == (2, "", 2)
        assert [seen["kind"] for seen in result.observations] == ["run_again_alone"]
        assert result.device_seconds > result.seconds["tried_beside"] > 0
        ((_, (steps, _)),) = Series.objects.filter(trial=trial).newest().points()
        assert list(steps) == [0], "its curve is that of the second attempt alone"


SLOW = "time.sleep(0.5)"  # an answer


def judged_beside_warming(project: Project, running: Running) -> tuple[Trial, Trial]:
    """A trial that is being judged for long, and the next one, which warms up."""
    one, two = known(project, tree(forward=SLOW)), known(project, tree(warm=5.0))
    experiment = screen(project, 1, one, two)
    running.worker.warm("nanochat")
    running.thread.start()
    running.until(lambda: len(Watched.seen) == 2)
    assert Watched.seen[0].trained and not Watched.seen[0].over and Watched.seen[1].beside
    baseline, candidate = experiment.trials.order_by("arm")
    return baseline, candidate


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
def test_a_lost_lease_stops_its_own_trial_alone(
    tiny: Project, running: Running, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    monkeypatch.setattr("runners.worker.HEARTBEAT_SECONDS", 0.2)
    both = judged_beside_warming(tiny, running)
    lost, other = both[which], both[1 - which]
    began = time.monotonic()
    assert Lease.objects.get(trial=lost).release()
    running.until(lambda: Watched.seen[which].over)
    assert time.monotonic() - began < 3, "it was stopped"
    running.until(lambda: Result.objects.filter(trial=other).exists())
    assert other.result.score is not None and not Result.objects.filter(trial=lost).exists()
    assert not running.worker._held


@pytest.mark.slow
def test_a_broken_sandbox_leaves_the_other_slot_alone(tiny: Project, running: Running) -> None:
    judged, warming = judged_beside_warming(tiny, running)
    os.kill(Watched.seen[1].box.zygote_pid, signal.SIGKILL)
    running.until(lambda: not Trial.objects.unfinished().exists())
    assert judged.result.score is not None
    warming.refresh_from_db()
    assert warming.state == Trial.State.LOST and not Result.objects.filter(trial=warming).exists()


@pytest.mark.slow
def test_stop_ends_both_slots_and_gives_everything_back(tiny: Project, running: Running) -> None:
    judged_beside_warming(tiny, running)
    screen(tiny, 2, tiny.start_commit, tiny.start_commit)
    running.stop()
    assert not Lease.objects.open().exists() and not Result.objects.filter(trial__experiment__number=1).exists()
    assert set(Trial.objects.filter(experiment__number__lt=3).values_list("state", flat=True)) == {"waiting"}
    assert all(row.box._closed for row in Watched.seen)


@pytest.mark.slow
def test_what_nobody_foresaw_gives_all_back_and_the_worker_goes_on(
    tiny: Project, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watched, "fails_once", True)
    judged, warming = judged_beside_warming(tiny, running)
    running.until(lambda: not Trial.objects.unfinished().exists())
    assert judged.result.generation == warming.result.generation == 2
    assert_alone_when_timed([row for row in Watched.seen if row.clock])
