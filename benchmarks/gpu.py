"""What evaluators of all benchmarks ask of a GPU: which one a trial has, whether others are on it, why it failed."""

from __future__ import annotations

import re

from benchmarks.contract import Assignment, TrialFailed
from benchmarks.judging import JudgeProcess
from runners import cuda
from runners.sandbox import Sandbox, SandboxBroken

BUSY_BYTES = 4 << 30  # of a device, held by others before a trial; the judge itself holds well below one
_UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_ASKED = re.compile(r"Tried to allocate ([\d.]+) (bytes|KiB|MiB|GiB)")
# What torch and the CUDA runtime say, and the kind of failure that it is.
_ON_DEVICE = (
    ("out_of_memory", re.compile(r"CUDA out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED")),
    (
        "busy_device",
        re.compile(r"CUDA-capable device\(s\) is/are busy or unavailable|all CUDA-capable devices are busy"),
    ),
    ("no_device", re.compile(r"no CUDA-capable device is detected|No CUDA GPUs are available|no NVIDIA driver on")),
)


def gpu_of(task: Assignment, box: Sandbox) -> int | None:
    """The number of the trial's GPU; None without one. Raises SandboxBroken where the sandbox has none."""
    if task.preset.device != "cuda":
        return None
    try:
        return cuda.number_of(box.jail.devices)
    except cuda.CudaError as error:
        raise SandboxBroken(f"preset {task.preset.name} needs an NVIDIA GPU: {error}") from None


def check_not_busy(task: Assignment, judge: JudgeProcess) -> None:
    """Raises TrialFailed where others hold much of the device's memory."""
    if task.preset.device != "cuda":
        return
    used, total = judge.memory()
    if used > BUSY_BYTES:
        words = f"{used / 2**30:.1f} of its {total / 2**30:.1f} GiB are taken: end the other programs on it"
        raise TrialFailed("busy_device", f"the GPU is busy: {words}")


def device_failure(log: str) -> TrialFailed | None:
    """What the last complaint of the CUDA runtime in a log means, None where there is none.

    Of memory that ran out, `out_of_memory_bytes` says how much was asked for in vain.
    """
    for line in reversed(log.splitlines()):
        for kind, words in _ON_DEVICE:
            if words.search(line):
                asked = _ASKED.search(line)
                metrics = {"out_of_memory_bytes": float(asked[1]) * _UNITS[asked[2]]} if asked else {}
                return TrialFailed(kind, line.strip()[:300], metrics)
    return None
