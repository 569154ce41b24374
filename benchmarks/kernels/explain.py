"""What whoever writes a change must know of how a solution is called and timed, read from where each number is kept."""

from __future__ import annotations

from pathlib import Path

from benchmarks.contract import Preset
from benchmarks.kernels import launch
from runners.jail import Limits

MEBI = 1 << 20


def explain(preset: Preset, data: Path) -> list[str]:
    """One line each, markdown."""
    limits = Limits()
    rounds, sets, wall = launch.ROUNDS, launch.MOST_SETS, launch.WARM_UP_WALL
    return [
        "Each problem is a folder: `definition.json` (shapes, dtypes, the reference), "
        "`workload.jsonl` (the sizes that are measured, and how close outputs must come) and `solution.py`, which "
        "alone may be changed. A change is measured on the problems whose folders it touches.",
        "`run(*inputs)` of `solution.py` gets the inputs in the definition's order and returns the outputs: a tensor, "
        "a sequence in order, or a dict by name; of the reference's shapes and dtypes. It must leave its inputs as "
        "they are. Other sizes than those listed may be asked for.",
        f"Every set of inputs is drawn anew and called once; {rounds} batches of at most {sets} calls of each "
        "workload are timed. What counts is the CPU seconds of all processes and threads, on one core, from the call "
        "until the outputs are fetched. The reference is timed on the same inputs.",
        f"Importing a solution and its first call on a workload are free, up to {wall:g} s each: compile there. "
        '`from harness import compile_cpp`: `compile_cpp(text, flags)` makes a library of C++ with `extern "C"` '
        "functions, which take tensors as pointers, whole numbers as long, others as double. What compilers keep lies "
        "in /cache.",
        f"Limits: {limits.memory_bytes // MEBI:,} MiB of memory, {limits.scratch_bytes // MEBI} MiB of scratch in it, "
        f"{limits.processes} processes and threads, no network. What a solution prints is the log.",
    ]
