"""The stopwatch of GPUs, on the CPU: the same messages, pads and audits, in a real sandbox."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.kernels.cells import cells
from benchmarks.kernels.inside.calls import FACTOR, Pads, after, paced
from tests.kernel_technique_play import harness
from tests.kernel_trials import ADD, SCALE, SMOKE, Trials, trials

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
    assert all(cell.span_ms and cell.latency_ms > 0 < cell.reference_ms for cell in found[SCALE].values())
    assert {name: len(values) for name, values in lane.points.items()} == {
        f"latency_ms {SCALE}/{size}": 3 for size in ("40x64", "64x33")
    }
    spans = [sum(cell.span_ms or 0 for cell in cells(one.metrics)[SCALE].values()) for one in (start, fast)]
    assert spans[1] < spans[0]  # whoever else works on this machine is in all wall times; here least


def test_every_call_comes_after_its_pads_and_what_they_leave_is_known() -> None:
    pads, seen = Pads(torch.zeros(64, dtype=torch.uint8)), []
    values = [[5, 2**31 - 1], [7, 11], [0, 3]]
    words = pads.words

    def run(number: int) -> int:
        seen.append(int(words[0]))
        return number

    looked: list[tuple[int, object]] = []
    sets = [(number,) for number in range(3)]
    returned, spans = paced(run, sets, pads, pads.keys(values), lambda: None, lambda *of: looked.append(of))
    assert returned == [0, 1, 2] and looked == [(0, 0), (1, 1), (2, 2)]
    assert len(spans) == 3 and all(each >= 0 for each in spans)
    assert seen == [after(0, values[: number + 1]) for number in range(3)]
    assert bool((words == after(0, values)).all()) and seen[0] != seen[1]
    assert after(1, [[0]]) == FACTOR and after(0, [[2**31]]) == -(2**31)


LAST_DOES_ALL = """
import torch

asked = []


def run(x, gain):
    out = torch.empty_like(x)
    asked.append((x, gain, out))
    if len(asked) % 8 == 0:
        for one, by, into in asked:
            torch.mul(one, by, out=into)
        asked.clear()
    return out
"""
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


@pytest.mark.parametrize("text", [LAST_DOES_ALL, IN_A_THREAD])
def test_outputs_that_come_after_their_call_are_wrong(lane: Trials, text: str) -> None:
    outcome = lane.run({SCALE: text})
    assert outcome.failure is not None and outcome.failure.kind == "bad_output", outcome
    assert "call" in outcome.failure.message and "scale_rows/" in outcome.failure.message


def test_whoever_leaves_the_pads_out_is_found(lane: Trials) -> None:
    outcome = lane.run({SCALE: SKIPS_THE_PADS})
    assert outcome.failure is None
    assert {"pads_skipped"} <= {seen.kind for seen in outcome.observations if seen.severity == "structural"}


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
