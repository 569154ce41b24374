"""The stopwatch of GPUs, on the CPU: the same messages, pads and audits, in a real sandbox."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.contract import Assignment
from benchmarks.judge_device import Shared
from benchmarks.kernels.batch import Batch, Digest, Layout
from benchmarks.kernels.cells import cells
from benchmarks.kernels.formats.loader import load_problem
from benchmarks.kernels.inside.bell import KEY_BITS, Bell, page
from benchmarks.kernels.inside.calls import FACTOR, Pads, after, at, queued, seal
from benchmarks.kernels.redteam.on_gpu import EXPLOITS
from benchmarks.kernels.stopwatch import BLUR, StopwatchLaunch, counted
from tests.kernel_technique_play import harness
from tests.kernel_trials import ADD, SCALE, SMOKE, Trials, prepare, trials

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

FAST = "def run(x, gain):\n    return x * gain\n"


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    with trials(tmp_path_factory.mktemp("kernels") / "data") as lane:
        lane.preset = replace(SMOKE, clock="wall")
        yield lane


def test_every_workload_is_timed_and_a_faster_solution_is_faster(lane: Trials) -> None:
    start, fast = lane.run(problems=(ADD, SCALE)), lane.run({SCALE: FAST})
    assert start.failure is None and fast.failure is None, (start.failure, fast.failure)
    found = cells(start.metrics)
    assert {name: set(of) for name, of in found.items()} == {ADD: {"64x128"}, SCALE: {"40x64", "64x33"}}
    assert all(cell.stopwatch_ms and cell.latency_ms > 0 < cell.reference_ms for cell in found[SCALE].values())
    assert {name: len(values) for name, values in lane.points.items()} == {
        f"latency_ms {SCALE}/{size}": 3 for size in ("40x64", "64x33")
    }
    taken = [sum(cell.latency_ms for cell in cells(one.metrics)[SCALE].values()) for one in (start, fast)]
    assert taken[1] < taken[0]


def test_calls_come_behind_their_pads_and_what_these_leave_is_known() -> None:
    pads, inputs = Pads(torch.zeros(64, dtype=torch.uint8)), torch.arange(16, dtype=torch.uint8)
    told: list[object] = []
    values, plain = [5, 2**31 - 1, 9, 7, 11], inputs.clone()
    words = pads.words
    seal(inputs, 77)
    assert not torch.equal(inputs, plain)

    def unseal() -> None:
        told.append(("unseal", words.tolist()))
        seal(inputs, 77)

    def run(number: int) -> int:
        told.append((number, words.tolist()))
        return 10 * number

    def look(returned: object) -> None:
        told.append(("look", returned))

    done = queued(run, [(0,), (1,)], pads, pads.keys(values), 2, unseal, lambda: told.append("waited"), 0, look)
    before, behind = after((0, 0), values[:-2]), after((0, 0), values)
    assert told == [
        ("unseal", [before[0]] * 8 + [before[1]] * 8),
        (0, [behind[0]] * 8 + [behind[1]] * 8),
        ("look", 0),
        (1, words.tolist()),
        "waited",
    ]
    assert done.returned == [0, 10] and done.span > 0 and done.launched > 0 and torch.equal(inputs, plain)
    assert after((1, 1), [0]) == (FACTOR, 1) and after((0, 0), [2**31, 2**31]) == (-(2**31), -(2**31))


LAST_DOES_ALL = next(one.solution for one in EXPLOITS if one.name == "last_call_does_all")
SKIPS_THE_PADS = """
import sys

import torch

calls = sys.modules["calls"]
calls.Pads.run = lambda self, keys: None


def run(x, gain):
    return x * gain
"""
IN_A_THREAD = """
import threading
import time

import torch


def later(x, gain, out):
    time.sleep(0.05)
    torch.mul(x, gain, out=out)


def run(x, gain):
    out = torch.empty_like(x)
    threading.Thread(target=later, args=(x, gain, out)).start()
    return out
"""


AT_INPUTS = """
import gc

ready = {}
for found in gc.get_objects():
    if type(found).__name__ == "Launch" and hasattr(found, "inputs"):
        inputs = found.inputs

        def ahead(message, descriptor):
            inputs(message, descriptor)
            ready.update({one[0].data_ptr(): one[0] * one[1] for one in found.sets})

        found.inputs = ahead
        break


def run(x, gain):
    return ready[x.data_ptr()] if x.data_ptr() in ready else x * gain
"""


def test_inputs_that_lie_there_ahead_of_the_clock_are_of_no_use(lane: Trials) -> None:
    outcome = lane.run({SCALE: AT_INPUTS})
    assert outcome.failure is not None and outcome.failure.kind == "bad_output", outcome


@pytest.mark.parametrize("text", [LAST_DOES_ALL, IN_A_THREAD])
def test_outputs_that_come_after_their_call_are_wrong(lane: Trials, text: str) -> None:
    outcome = lane.run({SCALE: text})
    assert outcome.failure is not None and outcome.failure.kind == "bad_output", outcome
    assert "call" in outcome.failure.message and "scale_rows/" in outcome.failure.message


def test_whoever_leaves_the_pads_out_is_found(lane: Trials) -> None:
    outcome = lane.run({SCALE: SKIPS_THE_PADS})
    assert outcome.failure is None
    assert {"pads_skipped"} <= {seen.kind for seen in outcome.observations if seen.severity == "structural"}


def test_what_is_taken_off_a_time_is_measured_before_a_solution_is_there(
    lane: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that shares the device could hold up the judge, and its own messages without calls."""
    asked: list[str] = []
    ask_judge, ask = StopwatchLaunch.ask_judge, StopwatchLaunch.ask

    def of_the_judge(self: StopwatchLaunch, request: Any) -> Any:
        asked.append(f"judge {request['op']}{' timed' if 'keys' in request else ''}")
        return ask_judge(self, request)

    def of_the_solution(self: StopwatchLaunch, message: Any, *more: Any, **options: Any) -> Any:
        for op in message.get("orders", [message["op"]]):
            asked.append(f"{op}{' of a solution' if 'problem' in message else ''}")
        return ask(self, message, *more, **options)

    monkeypatch.setattr(StopwatchLaunch, "ask_judge", of_the_judge)
    monkeypatch.setattr(StopwatchLaunch, "ask", of_the_solution)
    outcome = lane.run({SCALE: FAST}, confirming=True)
    assert outcome.failure is None
    at = asked.index("load of a solution")
    measured = {"judge pads", "judge refer timed", "call"}
    assert measured <= set(asked[:at]) and "call of a solution" not in asked[:at]
    assert not measured & set(asked[at:]) and "call of a solution" in asked[at:]


SLEEPS = "import time\n\n\ndef run(x, gain):\n    time.sleep(2e-3)\n    return x * gain\n"


def test_whoever_says_too_early_that_it_is_done_pays_when_outputs_are_fetched(lane: Trials) -> None:
    early = next(one.solution for one in EXPLOITS if one.name == "rings_early")
    plain, rung = (
        cells(lane.run({SCALE: text}).metrics)[SCALE] for text in (SLEEPS, early.partition("def run")[0] + SLEEPS)
    )
    assert all(cell.latency_ms > 1.9 for cell in plain.values()), plain
    assert all(cell.latency_ms > 1.7 for cell in rung.values()), rung


FORGED = """import sys

sys.modules["calls"].Span.seconds = lambda self: 1e-9


"""


def test_whoever_forges_events_is_held_to_the_stopwatch(lane: Trials) -> None:
    outcome = lane.run({SCALE: FORGED + SLEEPS})
    assert outcome.failure is None, outcome
    assert all(cell.latency_ms > 1.9 for cell in cells(outcome.metrics)[SCALE].values()), outcome.metrics
    assert "clocks_apart" in {seen.kind for seen in outcome.observations if seen.severity == "structural"}


def test_events_count_unless_a_stopwatch_saw_more_than_its_blur() -> None:
    assert counted(told=2e-3, seen=1.9e-3) == 2e-3
    assert counted(told=2e-3, seen=2e-3 + BLUR) == pytest.approx(2e-3)
    assert counted(told=2e-3, seen=3e-3) == pytest.approx(3e-3 - BLUR)
    assert counted(told=-1.0, seen=0.0) > 0


def test_a_bell_carries_an_order_and_its_key_together() -> None:
    descriptor = page()
    ours, theirs = Bell(descriptor), Bell(descriptor)
    assert not ours.answered(1, 1)
    ours.ring(1, 2**KEY_BITS - 1)
    assert theirs.heard(1) == 2**KEY_BITS - 1
    theirs.answer(1)
    assert ours.answered(1, 1) and not ours.answered(2, 1)
    ours.ring(2, 0)
    assert theirs.heard(2) == 0
    with pytest.raises(OSError):
        os.ftruncate(descriptor, 1)
    os.close(descriptor)


NVCC = """#!/bin/sh
while [ "$#" -gt 1 ]; do [ "$1" = -o ] && made=$2; shift; done
exec g++ -x c++ -shared -fPIC -o "$made" "$1"
"""


def test_cuda_is_compiled_by_the_toolkit_of_the_machine_or_one_line_says_that_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    source = f'extern "C" long seven(long more) {{ return 7 + more; }} // {tmp_path}'
    with harness():
        import harness as inside

        if shutil.which("nvcc") is None:
            with pytest.raises(RuntimeError, match="there is no nvcc on this machine"):
                inside.compile_cuda(source)
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "nvcc").write_text(NVCC)
        (tmp_path / "bin" / "nvcc").chmod(0o755)
        assert inside.compile_cuda(source).seven(1) == 8
        with pytest.raises(RuntimeError, match="nvcc refused the source"):
            inside.compile_cuda("no C++")


def test_inputs_lie_sealed_in_memory_of_whole_pages(tmp_path: Path) -> None:
    """Devices hand out more than was asked for; what lies behind the sets is nobody's."""
    problem_, cpu = load_problem(prepare(tmp_path) / "problems" / SCALE), torch.device("cpu")
    layout = Layout({"x": torch.zeros(5), "n": 3})
    batch = Batch(problem_, problem_.workloads[0], layout, 2, Shared(2 * layout.stride + 4096, cpu))
    for number in (1.0, 2.0):
        batch.add({"x": torch.full((5,), number), "n": 3})
    shown, digest = batch.inputs.bytes, Digest(cpu)
    batch.show(12345)
    assert batch.key == 12345 and at(shown, layout.places[0], 0).tolist() != [1.0] * 5
    seal(batch.theirs, 12345)
    assert [at(shown, layout.places[0], start).tolist() for start in (0, layout.stride)] == [[1.0] * 5, [2.0] * 5]
    assert digest.of(batch.own) == digest.of(batch.theirs) and not shown[2 * layout.stride :].any()
    at(shown, layout.places[0], 0).zero_()
    assert digest.of(batch.own) != digest.of(batch.theirs) and batch.sets[0]["x"].tolist() == [1.0] * 5  # type: ignore
    batch.close()
    batch.inputs.close()


COMPILES = """
from pathlib import Path

import inside_call

Path(inside_call.cache, "compiled").write_text("x * gain")  # as torch.compile does


def run(x, gain):
    return x * gain
"""


def test_what_compiles_is_compiled_ahead_and_other_problems_do_not_matter(lane: Trials, tmp_path: Path) -> None:
    def task(changed: dict[str, str], problems: tuple[str, ...] = (SCALE,)) -> Assignment:
        return replace(lane.task(changed, problems), caches=tmp_path)

    first, plain, wrong = task({SCALE: COMPILES}), task({SCALE: FAST}), task({SCALE: COMPILES + "\nrun = None"})
    elsewhere = replace(task({SCALE: COMPILES, ADD: FAST}), commit="d" * 40)
    prepared = lane.evaluator.is_prepared
    assert [prepared(each, lane.box) for each in (first, plain, wrong, elsewhere)] == [False, True, False, False]
    assert lane.evaluator.prepare(first, lane.box) and not lane.evaluator.prepare(wrong, lane.box)
    assert prepared(first, lane.box) and prepared(elsewhere, lane.box), "its own code is the same"
    assert not prepared(task({SCALE: COMPILES}, (SCALE, ADD)), lane.box), "other problems, other code"
    outcome = lane.evaluator.run(first, lane.box, lambda *_: None)
    assert outcome.score is not None and outcome.hashes["cache"] != "empty"
