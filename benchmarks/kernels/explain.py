"""What whoever writes a change must know of how a solution is called and timed, read from where each number is kept."""

from __future__ import annotations

from pathlib import Path

from benchmarks.contract import Preset
from benchmarks.kernels import launch
from benchmarks.kernels.cpu_clock import CpuLaunch
from benchmarks.kernels.stopwatch import StopwatchLaunch
from runners.device import sandbox_options
from runners.jail import Limits

MEBI = 1 << 20


def explain(preset: Preset, data: Path) -> list[str]:
    """One line each, markdown."""
    wall = launch.WARM_UP_WALL
    return [
        "Each problem is a folder: `definition.json` (shapes, dtypes, the reference), "
        "`workload.jsonl` (the sizes that are measured, and how close outputs must come) and `solution.py`, which "
        "alone may be changed. A change is measured on the problems whose folders it touches.",
        "`run(*inputs)` of `solution.py` gets the inputs in the definition's order and returns the outputs: a tensor, "
        "a sequence in order, or a dict by name; of the reference's shapes and dtypes. It must leave its inputs as "
        "they are. Other sizes than those listed may be asked for.",
        _stopwatch() if preset.clock == "wall" else _cpu_clock(),
        f"Importing a solution and its first call on a workload are free, up to {wall:g} s each and "
        f"{preset.wall_cap_seconds:g} s a problem: compile there. "
        '`from harness import compile_cpp`: `compile_cpp(text, flags)` makes a library of C++ with `extern "C"` '
        "functions, which take tensors as pointers, whole numbers as long, others as double"
        + (
            "; `compile_cuda` the same of CUDA C++, and `harness.stream()` is the stream to launch on. "
            if preset.device == "cuda"
            else ". "
        )
        + "What compilers keep lies in /cache.",
        _limits(preset),
    ]


def _cpu_clock() -> str:
    rounds, sets = CpuLaunch.rounds, CpuLaunch.most_sets
    return (
        f"Every set of inputs is drawn anew and called once; {rounds} batches of at most {sets} calls of each workload "
        "are timed. What counts is the CPU seconds of all processes and threads, on one core, from the call until the "
        "outputs are fetched. The reference is timed on the same inputs."
    )


def _stopwatch() -> str:
    return (
        f"Every set of inputs is drawn anew and called once; {StopwatchLaunch.rounds} batches of at most "
        f"{StopwatchLaunch.most_sets} calls of each workload are timed, by events around them and from outside; the "
        "shortest counts, and events only as far as the time from outside bears them out. "
        "The calls of a batch are given to the device while it passes over memory larger than the L2 cache, so "
        "launches are hidden and caches are cold; they follow each other without a gap. Outputs must be there when the "
        "next call begins on the current stream: work on other streams has to be joined. The reference is timed by "
        "events in the judge before a solution is imported."
    )


def _limits(preset: Preset) -> str:
    if preset.device == "cuda":
        return (
            "Limits: the memory of the device less what inputs, outputs and the reference take, a share of the host's "
            "memory, no network. What a solution prints is the log."
        )
    limits = sandbox_options("cpu").get("limits", Limits())
    return (
        f"Limits: {limits.memory_bytes // MEBI:,} MiB of memory, {limits.scratch_bytes // MEBI} MiB of scratch in it, "
        f"{limits.processes} processes and threads, no network. What a solution prints is the log."
    )
