"""What this machine is: the processor's name, how its clock is governed, and what a trial on its device gets.

Read from the kernel, never guessed.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypedDict

from runners import cuda
from runners.jail import Limits
from runners.launch import SandboxBroken

MOST_MEMORY = 96 << 30  # of the host for one trial on a GPU, and no more than half of the machine's
GPU_CACHE = 512 << 20  # bytes: one compiled variant of a kernel is eight files, and tuning compiles dozens
# The compiler costs four seconds to import; nothing of this touches the GPU, which a step could then not open any more.
COMPILER = ("torch._inductor.compile_fx",)
COMPILES = {
    "TORCH_WARM_POOL": "0",  # no processes of the compiler in the zygote
    "TORCHINDUCTOR_WORKER_START": "fork",  # of a step, which has everything imported
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # to look whether there is a GPU without opening it
    "TORCHINDUCTOR_AUTOGRAD_CACHE_ALLOW_CUSTOM_AUTOGRAD": "1",  # a cache is of one commit, so of one set of functions
}
_DRIVER = Path("/proc/driver/nvidia")
_POLICY = Path("/sys/devices/system/cpu/cpu0/cpufreq")


@cache
def processor() -> str:
    """The processor's own name, so that results are only compared on equal hardware."""
    return next(_of_cpuinfo("model name"), "") or platform.processor() or platform.machine()


@dataclass(frozen=True)
class Gpu:
    number: int  # as the driver counts, by the PCI bus
    name: str


def gpus() -> list[Gpu]:
    """The GPUs that a process here can open. The driver is not asked: that would take memory on each."""
    names = {}
    for about in _DRIVER.glob("gpus/*/information"):
        rows = dict(line.split(":", 1) for line in (_read(about) or "").splitlines() if ":" in line)
        names[rows.get("Device Minor", "").strip()] = rows.get("Model", "").strip()
    found = []
    for number in range(cuda.count()):
        minor = cuda.nodes(number)[0].removeprefix("/dev/nvidia")
        found.append(Gpu(number, names.get(minor) or "NVIDIA GPU"))
    return found


def missing(kind: str) -> str:
    """Why no trial on a device of `kind` ("cpu" or "cuda") can run on this machine: one line; empty where one can."""
    if kind == "cpu":
        return ""
    if not cuda.count():
        if _DRIVER.is_dir():
            return (
                "the NVIDIA driver is here but not its device nodes (/dev/nvidia0, /dev/nvidiactl, /dev/nvidia-uvm): "
                "start the container with its GPUs, or run nvidia-modprobe -c 0 -u"
            )
        return "there is no NVIDIA GPU here (no /dev/nvidia0): choose a CPU preset, or run it where one is"
    if "/dev/nvidia-uvm" not in cuda.nodes(0):
        return "CUDA needs the device node /dev/nvidia-uvm, which is missing: run nvidia-modprobe -u -c 0"
    try:
        torch = version("torch")
    except PackageNotFoundError:
        return "torch is not installed: run make run"
    if torch.endswith("+cpu"):
        return f"the installed torch {torch} is the build for CPUs: install the CUDA build, pip install --force torch"
    return ""


class SandboxOptions(TypedDict, total=False):
    """Arguments of `Sandbox.start` that depend on the device alone."""

    devices: tuple[str, ...]
    limits: Limits
    threads: int
    preload_also: tuple[str, ...]
    environment: dict[str, str]


def sandbox_options(kind: str, number: int = 0) -> SandboxOptions:
    """What the sandbox of a trial on a device of `kind` ("cpu" or "cuda") is started with; `number`: which GPU.

    Raises SandboxBroken where the machine has no such GPU.
    """
    if kind == "cpu":
        return {}
    if not (devices := cuda.nodes(number)):
        raise SandboxBroken(f"this machine has no GPU {number} (no device node /dev/nvidia*); choose a CPU preset")
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = Limits(
        memory_bytes=min(MOST_MEMORY, whole // 2),
        processes=1024,  # compilers start a process a core, the CUDA runtime threads of its own
        scratch_bytes=8 << 30,
        open_files=4096,
        file_bytes=9 << 30,  # weights of 8 GiB and a header
        cache_bytes=GPU_CACHE,
        cache_entries=32_768,
    )
    threads = max(1, min(8, len(os.sched_getaffinity(0)) // 2))
    return {
        "devices": devices, "limits": limits, "threads": threads, "preload_also": COMPILER,
        "environment": dict(COMPILES),
    }  # fmt: skip


def clocks() -> dict[str, str]:
    """Governor and present frequency, as far as the kernel tells; a container often shows neither."""
    found = {}
    if (governor := _read(_POLICY / "scaling_governor")) is not None:
        found["governor"] = governor
    if (megahertz := next(_of_cpuinfo("cpu MHz"), "")) != "":
        found["megahertz"] = megahertz
    return found


def _of_cpuinfo(name: str) -> Iterator[str]:
    lines = (_read(Path("/proc/cpuinfo")) or "").splitlines()
    return (line.split(":", 1)[1].strip() for line in lines if line.startswith(name))


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
