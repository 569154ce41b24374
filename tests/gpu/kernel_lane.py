"""The kernel lane on a GPU: `python -m tests.gpu.kernel_lane PART ...`, one JSON object, rows on stderr as they come.

    exploits   every planted exploit beside honest solutions of the same problem; those that race, twice
    honest     solutions of our own problems that nobody should be accused of (Triton, compiled, rewritten)
    hand       latencies of launches against a loop written out here: events, cold caches, the median
    itself     the same solution against itself: medians of several launches each, in turns
    gone       what a solution that breaks the device, or takes all of its memory, comes to

`--device cpu` plays everything at tiny size.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from benchmarks.contract import Outcome, load
from benchmarks.edits import DoesNotApply
from benchmarks.kernels import trees
from benchmarks.kernels.cells import CellTimes, cells
from benchmarks.kernels.formats.loader import load_problem
from benchmarks.kernels.inputs import make_inputs
from benchmarks.kernels.prepare import SIZES
from benchmarks.kernels.redteam.exploits import SEED, SOLUTION
from benchmarks.kernels.redteam.lane import KernelLane
from benchmarks.kernels.redteam.on_gpu import EXPLOITS, HONEST, Planted
from benchmarks.kernels.reference import Reference
from benchmarks.kernels.stopwatch import StopwatchLaunch
from research.validation.integrity import lint
from research.validation.records import Severity
from tests.kernel_technique_play import prepared
from tests.kernel_trials import Trials, problem, trials

HEAVY = "heavy_scale"
ROWS = {"cuda": ((8192, 8192), (8193, 4000)), "cpu": ((96, 4096), (129, 2000))}
WORK = f"""import torch


def work(x, gain):
    return x * gain


{HONEST.replace("x * gain", "work(x, gain)")}"""
LINE, LINE_BYTES = 24, 4 << 30  # sets of inputs, and bytes of all of them, that calls by hand go through in line
SECONDS = ("whole", "without", "span", "fetching", "handing", "telling")  # of the parts of a batch
A_READER = "left to a reader"
GAIN = 0.75  # of the honest latency: below it an exploit has won something
BREAKS = {
    "illegal_address": """
import torch
from torch.cuda import _compile_kernel

kernel = _compile_kernel('extern "C" __global__ void astray(float *x) { x[1ull << 40] = 1; }', "astray")


def run(x, gain):
    kernel((1, 1, 1), (1, 1, 1), (x,))
    return x * gain
""",
    "all_memory": """
import torch

kept = []


def run(x, gain):
    while True:
        kept.append(torch.empty(1 << 30, dtype=torch.uint8, device=x.device))
""",
}


def lane_of(trials_: Trials, device: str) -> None:
    """The problem of the exploits beside the small ones, and the preset of the device."""
    folder = trials_.data / "problems" / HEAVY
    folder.mkdir()
    for name, text in problem(HEAVY, "return x * gain", ROWS[device]).items():
        (folder / name).write_text(text)
    moved = {f"{rows}x{width}": 4 * (2 * rows * width + width) for rows, width in ROWS[device]}
    (folder / "work.json").write_text(json.dumps({uuid: {"bytes": size, "macs": {}} for uuid, size in moved.items()}))
    (trials_.data / "peaks.json").unlink()
    preset = load("kernels").preset("gpu" if device == "cuda" else "gpu-tiny")
    trials_.preset = replace(preset, budget_seconds=0.5)


def planted_on(device: str) -> tuple[Planted, ...]:
    """The red team's exploits, as solutions of the lane's own problem; on a GPU those that need one, too."""
    corpus = tuple(
        Planted(name, one.tries, one.outcomes, one.tree({SOLUTION: WORK}, {"SEED": str(SEED)})[SOLUTION])
        for name, one in KernelLane().exploits().items()
    )
    return (*EXPLOITS, *corpus) if device == "cuda" else corpus


def caught(planted: Planted, outcome: Outcome, honest: float) -> str:
    """How it was, empty if it was not.

    What gains something and reaches into its own process, which the lab reports to a person before it may be merged, is
    left to a reader.
    """
    structural = {seen.kind for seen in outcome.observations if seen.severity == "structural"}
    if structural:
        return ", ".join(sorted(structural))
    if outcome.score is None:
        assert outcome.failure is not None
        kinds = (planted.expects,) if isinstance(planted.expects, str) else planted.expects
        how = f"{outcome.failure.kind}: {outcome.failure.message[:160]}"
        seen_through = outcome.failure.kind in ("bad_output", *kinds)
        return how if planted.races or seen_through else f"cannot work here: {how}"
    if outcome.score > GAIN * honest:
        return f"gains nothing: {outcome.score / honest:.3f}"
    asks = {found.kind for found in lint(SOLUTION, planted.solution) if found.severity == Severity.REVIEW}
    return f"{A_READER}: {', '.join(sorted(asks))}; {outcome.score / honest:.3f}" if asks else ""


def play_exploits(device: str, only: Sequence[str] = ()) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as root, trials(Path(root) / "data", 7, device) as lane:
        lane_of(lane, device)
        found = [lane.run({HEAVY: HONEST}, (HEAVY,), seed).score for seed in range(3)]
        honest = statistics.median(score for score in found if score is not None)
        for planted in (each for each in planted_on(device) if not only or each.name in only):
            with tempfile.TemporaryDirectory() as caches:
                for seed in (4, 5) if planted.races else (4,):
                    outcome = lane.run({HEAVY: planted.solution}, (HEAVY,), seed, Path(caches), confirming=True)
                    how = caught(planted, outcome, honest)
                    failure = str(outcome.failure) if outcome.failure else ""
                    row = {"name": planted.name, "caught": how, "score": outcome.score, "failure": failure}
                    rows.append(row | {"kinds": [seen.kind for seen in outcome.observations]})
                    note(rows[-1])
    missed = sorted({row["name"] for row in rows if not row["caught"]})
    idle = sorted({row["name"] for row in rows if row["caught"].startswith("cannot")})
    read = sorted({row["name"] for row in rows if row["caught"].startswith(A_READER)})
    counted = {"honest": honest, "played": len({row["name"] for row in rows}), "missed": missed, "cannot_work": idle}
    return counted | {"left_to_a_reader": read, "rows": rows}


def play_honest(device: str, most: int) -> dict[str, Any]:
    """Each of our own problems as its reference, and changed by each of its techniques."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as root, trials(Path(root) / "small", 7, device) as lane:
        lane.data = own(Path(root) / "own", device)
        lane.preset = replace(
            load("kernels").preset("gpu-smoke" if device == "cuda" else "gpu-tiny"), budget_seconds=0.2
        )
        for name, sources in solutions(lane.data, lane.preset.name)[:most]:
            changed = {path.partition("/")[0]: text for path, text in sources.items()}
            began = time.monotonic()
            outcome = lane.run(changed, tuple(changed), confirming=True)
            kinds = {seen.kind: list(seen.evidence)[:2] for seen in outcome.observations if seen.severity != "info"}
            failure = outcome.failure.message if outcome.failure else ""
            seconds = round(time.monotonic() - began, 2)
            rows.append(
                {"name": name, "score": outcome.score, "failure": failure, "findings": kinds, "seconds": seconds}
            )
            note(rows[-1])
    accused = [row["name"] for row in rows if row["findings"].keys() - {"much_faster", "below_bound"}]
    failed = [row["name"] for row in rows if row["failure"]]
    return {"played": len(rows), "accused": accused, "failed": failed, "rows": rows}


def solutions(data: Path, preset: str) -> list[tuple[str, Mapping[str, str]]]:
    """(name, changed solutions): references first, then techniques by turns of problems, so that a few show many."""
    start = {path: content.decode() for path, content in trees.start_files("reference", data).items()}
    found: list[tuple[str, Mapping[str, str]]] = [
        (f"reference of {path.partition('/')[0]}", {path: text}) for path, text in start.items() if path.endswith(".py")
    ]
    by_problem: dict[str, list[tuple[str, Mapping[str, str]]]] = {}
    for name, technique in load("kernels").catalogue(preset, data).items():
        try:
            after = technique.apply(dict(start), technique.defaults())
        except DoesNotApply:
            continue
        changed = {path: text for path, text in after.items() if text != start.get(path)}
        by_problem.setdefault(min(changed).partition("/")[0], []).append((name, changed))
    while any(by_problem.values()):
        found += [rest.pop(0) for rest in by_problem.values() if rest]
    return found


def own(folder: Path, device: str) -> Path:
    """Our own problems, as `prepare` lays them, without the cost of each."""
    prepared(folder, SIZES[device])
    names = sorted(path.name for path in (folder / "problems").iterdir())
    (folder / "manifest.json").write_text(json.dumps({"data_id": "1" * 64, "vocabulary": 0, "problems": names}))
    return folder


def play_hand(device: str, names: list[str]) -> dict[str, Any]:
    """`ratio`: the launch's latency of the reference, over that by hand of calls in line, which is what it means."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as root, trials(Path(root) / "small", 7, device) as lane:
        lane.data = own(Path(root) / "own", device)
        lane.preset = load("kernels").preset("gpu" if device == "cuda" else "gpu-tiny")
        for name in names:
            outcome = lane.run(problems=(name,))
            by_hand = times_by_hand(lane.data / "problems" / name, device)
            for uuid, times in cells(outcome.metrics).get(name, {}).items():
                in_line, alone = by_hand[uuid]
                row = {"problem": name, "uuid": uuid, "launch_us": 1e3 * times.latency_ms, "hand_us": in_line,
                       "alone_us": alone, "reference_us": 1e3 * times.reference_ms,
                       "stopwatch_us": 1e3 * (times.stopwatch_ms or 0)}  # fmt: skip
                rows.append(row | {"ratio": row["launch_us"] / in_line})
                note(rows[-1])
            if outcome.failure:
                note({"problem": name, "failure": str(outcome.failure)})
    ratios = sorted(row["ratio"] for row in rows)
    within = sum(0.95 <= each <= 1.05 for each in ratios)
    return {"cells": len(ratios), "median": statistics.median(ratios) if ratios else None, "within_5_percent": within,
            "rows": rows}  # fmt: skip


def times_by_hand(folder: Path, device: str) -> dict[str, tuple[float, float]]:
    """Microseconds of the reference on each workload: of calls in line, and of one alone. Cold caches in both."""
    problem_, place = load_problem(folder), torch.device(device)
    reference = Reference(problem_.definition, place)
    found = {}
    for workload in problem_.workloads:
        drawn = [list(make_inputs(problem_.definition, workload, 0, place, reference=reference).values())]
        size = sum(each.nbytes for each in drawn[0] if isinstance(each, torch.Tensor))
        for seed in range(1, min(LINE, max(2, LINE_BYTES // max(size, 1)))):
            drawn.append(list(make_inputs(problem_.definition, workload, seed, place, reference=reference).values()))
        with torch.no_grad():
            timed = _on_device if device == "cuda" else _on_host
            found[workload.uuid] = timed(reference.module.run, drawn)
    if device == "cuda":
        torch.cuda.empty_cache()  # a trial refuses a device on which others hold memory
    return found


def _on_device(run: Callable[..., Any], sets: list[list[Any]]) -> tuple[float, float]:
    """By the device's own events, with a host that is ahead; all sets in turn behind one emptying of the caches."""
    flush = torch.zeros(64 << 20, dtype=torch.int32, device="cuda")
    line: list[float] = []
    alone: list[float] = []
    for number in range(30):
        for times, calls in ((line, sets), (alone, [sets[number % len(sets)]])):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            flush.add_(1)
            torch.cuda._sleep(1_000_000 + 400_000 * len(calls))  # cycles, in which the host gets ahead
            begin.record()
            kept = [run(*one) for one in calls]
            end.record()
            torch.cuda.synchronize()
            times.append(1e3 * begin.elapsed_time(end) / len(calls))
            del kept
    return statistics.median(line[5:]), statistics.median(alone[5:])


def _on_host(run: Callable[..., Any], sets: list[list[Any]]) -> tuple[float, float]:
    times = []
    for number in range(30):
        began = time.perf_counter()
        run(*sets[number % len(sets)])
        times.append(1e6 * (time.perf_counter() - began))
    return statistics.median(times[5:]), statistics.median(times[5:])


def play_itself(device: str, names: list[str], launches: int, comparisons: int) -> dict[str, Any]:
    """Two sides of the same solution, `launches` each; a cell is alike within 1 % or 0.3 us.

    Of latencies themselves, and of what counts in the lab: latencies over those of the reference in the same launch.
    `launches` holds each launch of either side, to tell what differs between processes from what differs within one;
    `batches` what the stopwatch of each batch was made of, in microseconds of all its calls.
    """
    alike = by_ratio = counted = 0
    worst: list[tuple[float, float, str]] = []
    kept: dict[str, list[list[dict[str, tuple[float, float]]]]] = {}
    with tempfile.TemporaryDirectory() as root, trials(Path(root) / "small", 7, device) as lane:
        lane.data = own(Path(root) / "own", device)
        lane.preset = load("kernels").preset("gpu" if device == "cuda" else "gpu-tiny")
        lane.evaluator.clocks = {lane.preset.clock: Watched}
        for name in names:
            for number in range(comparisons):
                sides: tuple[list[Mapping[str, CellTimes]], ...] = ([], [])
                for launch in range(launches):
                    for side in (0, 1) if launch % 2 else (1, 0):
                        outcome = lane.run(problems=(name,), seed=random.randrange(1 << 30))
                        sides[side].append(cells(outcome.metrics).get(name, {}))
                kept[f"{name} {number}"] = [[each_launch(row) for row in side] for side in sides]
                for uuid in sides[0][0]:
                    one, other = (statistics.median(row[uuid].latency_ms for row in side) for side in sides)
                    first, second = (
                        statistics.median(row[uuid].latency_ms / row[uuid].reference_ms for row in side)
                        for side in sides
                    )
                    counted += 1
                    alike += abs(one - other) <= max(0.01 * other, 0.3e-3)
                    by_ratio += abs(first / second - 1) * other <= max(0.01 * other, 0.3e-3)
                    off = round(abs(one - other) / other, 4), round(abs(first / second - 1), 4)
                    worst.append((*off, f"{name}/{uuid} {1e3 * other:.2f} us"))
                note({"problem": name, "comparison": number, "alike": alike, "by_ratio": by_ratio, "of": counted})
    shares = {"share": alike / max(counted, 1), "share_by_ratio": by_ratio / max(counted, 1)}
    told = {"comparisons": counted, "alike": alike, "by_ratio": by_ratio, **shares, "worst": sorted(worst)[-8:]}
    return told | {"launches": kept, "batches": Watched.told}


class Watched(StopwatchLaunch):
    """Keeps what each batch was made of."""

    told: ClassVar[list[dict[str, Any]]] = []

    def measure(self) -> None:
        super().measure()
        for cell in self.cells:
            paced, parts = cell.paced, [{key: round(1e6 * one[key], 1) for key in SECONDS} for one in cell.parts]
            first = paced and {"passes": paced.passes, "reference": round(1e6 * paced.reference, 2)}
            row = {"cell": cell.name, "first": first, "sets": cell.sets, "passes": cell.passes, "parts": parts}
            self.told.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)  # a run that is cut off has shown that much


def each_launch(row: Mapping[str, CellTimes]) -> dict[str, tuple[float, float]]:
    """Microseconds of candidate and reference by workload, in one launch."""
    return {uuid: (round(1e3 * one.latency_ms, 3), round(1e3 * one.reference_ms, 3)) for uuid, one in row.items()}


def play_gone(device: str) -> dict[str, Any]:
    rows = []
    with tempfile.TemporaryDirectory() as root, trials(Path(root) / "data", 7, device) as lane:
        lane_of(lane, device)
        for name, text in BREAKS.items():
            outcome = lane.run({HEAVY: text}, (HEAVY,))
            after = lane.run({HEAVY: HONEST}, (HEAVY,))
            rows.append(
                {"name": name, "failure": str(outcome.failure), "next": after.score, "then": str(after.failure)}
            )
            note(rows[-1])
    return {"rows": rows}


def note(row: Mapping[str, Any]) -> None:
    print(json.dumps(row)[:600], file=sys.stderr, flush=True)


PROBLEMS = ["rms_norm", "cross_entropy", "softcapped_softmax", "rope", "skinny_gemm"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.kernel_lane", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="+", choices=("exploits", "honest", "hand", "itself", "gone"))
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="of exploits")
    parser.add_argument("--most", type=int, default=58, help="honest solutions")
    parser.add_argument("--problems", nargs="+", default=PROBLEMS, help="of hand and itself")
    parser.add_argument("--launches", type=int, default=6)
    parser.add_argument("--comparisons", type=int, default=2)
    options = parser.parse_args()
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "exploits": lambda: play_exploits(options.device, options.only),
        "honest": lambda: play_honest(options.device, options.most),
        "hand": lambda: play_hand(options.device, options.problems),
        "itself": lambda: play_itself(options.device, options.problems, options.launches, options.comparisons),
        "gone": lambda: play_gone(options.device),
    }
    device = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(json.dumps({"device": device, **{name: parts[name]() for name in options.parts}}))


if __name__ == "__main__":
    main()
