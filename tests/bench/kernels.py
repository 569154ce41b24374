"""How well the kernel lane's times on a CPU can be trusted: against a stopwatch by hand, and against themselves.

python -m tests.bench kernels

`by_hand`: one process that calls the reference on fresh inputs and reads its own CPU clock, nothing else, beside the
latency that a launch gives for the same code. `same_code`: medians of six launches of the same solution against six
others, in turns; the share of cells whose ratio is within one per cent or 0.3 us.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import statistics
import sys
import time
from pathlib import Path

from benchmarks.kernels.formats.loader import load_problem
from benchmarks.kernels.suite import Suite

ABOUT = "times of kernels on a CPU: against a clock by hand, and of the same code against itself"
BY_HAND = ("rms_norm", "silu_backward", "geglu_tanh", "softcapped_softmax", "moe_gating")
LAUNCHES = 6
CALLS = 24


def measure() -> dict[str, object]:
    from benchmarks.data import DataError
    from benchmarks.kernels.__main__ import install

    try:
        suite = Suite("cpu")
    except DataError:
        install("cpu")
        suite = Suite("cpu")
    launches = 2 if os.environ.get("BENCH_QUICK") else LAUNCHES
    rows: dict[tuple[str, str], list[list[float]]] = {}
    for turn in range(2 * launches):
        for line, _ in suite.measure(BY_HAND, lambda name: print(f"kernels: {name}", file=sys.stderr)):
            for uuid, times in line.times.items():
                arms = rows.setdefault((line.problem, uuid), [[], []])
                arms[(turn % 4) in (1, 2)].append(times.latency_ms)  # A B B A
    ratios = {place: statistics.median(one) / statistics.median(other) for place, (one, other) in rows.items()}
    within = [abs(ratio - 1) <= max(0.01, 3e-4 / statistics.median(rows[place][0])) for place, ratio in ratios.items()]
    hands = {place: by_hand(suite.data / "problems" / place[0], place[1]) for place in rows}
    against = {place: statistics.median(itertools.chain(*rows[place])) / seconds for place, seconds in hands.items()}
    return {
        "same_code": {
            "figure": sum(within) / len(within), "unit": "share of cells", "launches": launches,
            "worst": max(abs(ratio - 1) for ratio in ratios.values()),
        },
        "by_hand": {
            "figure": statistics.median(against.values()), "unit": "launch / by hand",
            "cells": {"/".join(place): round(ratio, 4) for place, ratio in against.items()},
        },
        "command": "python -m tests.bench kernels",
    }  # fmt: skip


def by_hand(folder: Path, uuid: str) -> float:
    """Milliseconds of CPU a call of the reference, on inputs that are drawn anew for each; median of batches."""
    import torch

    from benchmarks.kernels.inputs import make_inputs
    from benchmarks.kernels.reference import Reference

    torch.set_num_threads(1)
    libc = ctypes.CDLL(None)
    for option, value in ((-3, 1 << 30), (-1, (1 << 31) - 1)):  # as the judge and the sandbox have it
        libc.mallopt(option, value)
    problem = load_problem(folder)
    workload = next(each for each in problem.workloads if each.uuid == uuid)
    reference = Reference(problem.definition, "cpu")
    took = []
    for batch in range(CALLS // 4):
        sets = [
            make_inputs(problem.definition, workload, 4 * batch + number, reference=reference) for number in range(4)
        ]
        with torch.no_grad():
            began = time.process_time()
            kept = [reference.module.run(*one.values()) for one in sets]
            took.append((time.process_time() - began) / len(kept))
    return 1e3 * statistics.median(took[1:])
