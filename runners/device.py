"""What this machine is: the processor's name, and how its clock is governed. Read from the kernel, never guessed."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_POLICY = Path("/sys/devices/system/cpu/cpu0/cpufreq")


@cache
def processor() -> str:
    """The processor's own name, so that results are only compared on equal hardware."""
    return next(_of_cpuinfo("model name"), "") or platform.processor() or platform.machine()


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
