"""Commits that compile ahead: together, as many as the device has room for, and never one alone. Real sandboxes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.contract import Assignment, load
from benchmarks.nanochat import evaluate
from benchmarks.tar import pack
from research.models import Machine, Project, Result, Trial
from research.models.pace import expected_seconds, pair_seconds, usual_pair_seconds
from runners.ahead import MOST, Ahead
from runners.lab import Lab
from runners.sandbox import Sandbox
from tests.cast import World
from tests.test_compile_cache import TINY, WARM, writer
from tests.test_leases import experiment_of

GIB = 1 << 30
SLOW = WARM + "\nimport time\ntime.sleep(1)"


class OnDevice(evaluate.Evaluator):
    """The evaluator, as if its trials ran on a device with 80 GiB."""

    def device_memory(self, task: Assignment, box: Sandbox) -> int:
        return 80 * GIB


def start(number: int) -> Sandbox:
    """Without what an optimizer needs, which takes half of the time to start: these trees build none."""
    preload = [name for name in evaluate.PRELOAD if name != "torch._dynamo"]
    return Sandbox.start(64 + number, inside=evaluate.INSIDE, preload=preload, setup_statement=evaluate.SETUP)


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with start(9) as box:
        yield box


@pytest.fixture
def ahead() -> Iterator[Ahead]:
    ahead = Ahead(start)
    yield ahead
    ahead.close()


@pytest.fixture
def evaluator() -> Iterator[evaluate.Evaluator]:
    evaluator = OnDevice()
    yield evaluator
    evaluator.close()


def tasks(text: Path, caches: Path, warm_up: str = SLOW, many: int = 6) -> list[Assignment]:
    tree = pack({name: code.encode() for name, code in writer(warm_up).items()})
    return [Assignment("nanochat", TINY, f"{n:040}", tree, 1, "val_screen", text, caches=caches) for n in range(many)]


@pytest.mark.torch
def test_commits_warm_up_side_by_side_and_their_time_is_told_once(
    ahead: Ahead, evaluator: evaluate.Evaluator, box: Sandbox, prepared_text: Path, tmp_path: Path
) -> None:
    first, second, third, fourth, *_ = tasks(prepared_text, tmp_path / "caches")
    assert ahead.prepare(evaluator, box, [first, first], [second, first, third, fourth], 20 * GIB) == 3
    assert [evaluator.is_prepared(task, box) for task in (first, second, third, fourth)] == [True, True, True, False]
    owed = [ahead.settle(task.commit) for task in (first, second, third, fourth)]
    assert owed[0] == owed[1] == owed[2] > 0.33 and owed[3] == 0 and ahead.settle(first.commit) == 0
    *others, last = tasks(prepared_text, tmp_path / "caches", many=7)[4:]
    began = time.monotonic()
    assert ahead.prepare(evaluator, box, [fourth], [first, *others], 8 * GIB) == 3
    together, began = time.monotonic() - began, time.monotonic()
    assert evaluator.prepare(last, box)
    assert together < 2 * (time.monotonic() - began), "three sleeps of a second were one"


@pytest.mark.torch
def test_nothing_compiles_beside_the_start_whose_cache_it_could_have(
    ahead: Ahead, evaluator: evaluate.Evaluator, box: Sandbox, prepared_text: Path, tmp_path: Path
) -> None:
    start, *others = tasks(prepared_text, tmp_path / "caches", WARM, 3)
    origin = (start.commit, hashlib.sha256(start.tree).hexdigest())
    start, *others = (replace(task, origin=origin) for task in (start, *others))
    assert ahead.prepare(evaluator, box, [start, others[0]], others[1:], 8 * GIB) == 0
    assert ahead.prepare(evaluator, box, [start, others[0]], others[1:], 8 * GIB) == 2, "once: it may leave none"


@pytest.mark.torch
def test_what_is_prepared_or_alone_or_too_large_for_company_is_left_to_its_trial(
    ahead: Ahead, evaluator: evaluate.Evaluator, box: Sandbox, prepared_text: Path, tmp_path: Path
) -> None:
    first, second, *_ = tasks(prepared_text, tmp_path / "caches", WARM)
    assert ahead.prepare(evaluator, box, [first], [], 8 * GIB) == 0
    assert ahead.prepare(evaluator, box, [first], [second], 40 * GIB) == 0
    plain = evaluate.Evaluator()
    plain.judge(first, box)
    assert ahead.prepare(plain, box, [first], [second], 0.0) == 0, "there is no device"
    plain.close()
    assert not evaluator.is_prepared(first, box)
    assert evaluator.prepare(first, box)
    assert ahead.prepare(evaluator, box, [first], [second], 8 * GIB) == 0, "nothing waits for this one to compile"


@pytest.mark.torch
def test_a_commit_whose_warm_up_fails_is_left_to_its_trial(
    ahead: Ahead, evaluator: evaluate.Evaluator, box: Sandbox, prepared_text: Path, tmp_path: Path
) -> None:
    broken, fine, *_ = tasks(prepared_text, tmp_path / "caches", WARM)
    broken = replace(broken, tree=tasks(prepared_text, tmp_path / "caches", "raise SystemExit('no')")[0].tree)
    assert ahead.prepare(evaluator, box, [broken], [fine], 8 * GIB) == 1
    assert evaluator.is_prepared(fine, box) and not evaluator.is_prepared(broken, box)
    third = tasks(prepared_text, tmp_path / "caches", WARM)[2]
    assert ahead.prepare(evaluator, box, [broken], [third], 8 * GIB) == 0, "it is not tried again, and one is alone"


@pytest.fixture
def kept_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker hangs up between its claims; a test is one transaction."""
    monkeypatch.setattr("runners.lab.close_old_connections", lambda: None)


@pytest.mark.django_db
@pytest.mark.usefixtures("kept_connection")
def test_a_machine_is_told_what_comes_next_one_trial_a_commit(project: Project, world: World) -> None:
    lab = Lab(world.machine.name, world.machine.machine_class, 2, {"devices": ["cpu"]})
    lab.machine.attach(3, [])
    experiment_of(project, 1, 2)
    other = experiment_of(project, 2, 1)
    Trial.objects.filter(experiment=other, arm="candidate").update(commit="d" * 40)
    works = lab.claim()
    Trial.objects.filter(commit="d" * 40).update(commit=project.start_commit)
    later, held = lab.upcoming(works[0], MOST)
    assert [task.commit for task in later] == [project.start_commit] and held == 0
    seeds = Trial.objects.waiting().filter(experiment=other).values_list("seed", flat=True)
    assert later[0].seed in seeds, "served longest ago"
    works[0].trial.finish(
        works[0].lease, machine=lab.machine, score=1.0, isolation_level=3, machine_class="quick",
        metrics={"device_memory_bytes": 7.0},
    )  # fmt: skip
    assert lab.upcoming(works[0], MOST)[1] == 7.0


@pytest.mark.django_db
@pytest.mark.usefixtures("kept_connection")
def test_a_machine_begins_nothing_that_would_outlast_it(project: Project, world: World) -> None:
    experiment_of(project, 1, 1)
    seconds = pair_seconds(project)
    about = (world.machine.name, world.machine.machine_class, 2, {"devices": ["cpu"]})
    assert Lab(*about, until=time.time() + 0.9 * seconds).claim() == []
    assert len(Lab(*about, until=time.time() + 2 * seconds).claim()) == 2


def test_a_pair_that_nobody_measured_takes_longer_than_its_budgets() -> None:
    sizes = load("nanochat").preset
    assert usual_pair_seconds(sizes("gpu-60s")) == 160, "both arms one after another, each warmed up and judged"
    assert usual_pair_seconds(sizes("cpu")) == pytest.approx(13.2), "side by side"
    assert usual_pair_seconds(load("kernels").preset("gpu")) == pytest.approx(15.0)


@pytest.mark.django_db
def test_a_pair_is_expected_to_take_what_the_newest_took_and_the_warm_up_of_what_is_new(
    project: Project, quick: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart = replace(project.sizes, side_by_side=False, budget_seconds=60.0)
    monkeypatch.setattr(Project, "sizes", apart)
    monkeypatch.setattr(Trial, "sizes", apart)
    experiment = experiment_of(project, 1, 2)
    assert pair_seconds(project) == 130
    leases = Trial.objects.claim_pair(quick, "worker")
    for lease, took in zip(leases, (70.0, 90.0), strict=True):
        lease.trial.finish(
            lease, machine=quick, score=1.0, isolation_level=3, machine_class="quick", device_seconds=took + 30,
            seconds={"warm_up": 10.0, "total_wall": took + 25, "compiled_ahead": 30.0, "overlapped": 5.0},
        )  # fmt: skip
    assert Result.objects.count() == 2 and pair_seconds(project) == 160
    trial = Trial.objects.waiting().select_related("project", "experiment").first()
    assert trial is not None and expected_seconds(trial) == 160
    Trial.objects.filter(experiment=experiment, pair=1, arm="candidate").update(commit="e" * 40)
    assert expected_seconds(trial) == 160 + 60
    Trial.objects.filter(experiment=experiment, pair=0).update(seed=trial.seed)
    assert expected_seconds(trial) == 80 + 60, "its baseline has been measured for another screen"
