"""Reading /proc from outside a sandbox: processes, CPU time, memory. For hosts without control groups."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass, field
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def descendants(root: int) -> list[int]:
    """The process and all below it. Complete while `root` is an init or a subreaper: orphans come to it."""
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        try:
            for thread in Path(f"/proc/{pid}/task").iterdir():
                waiting += [int(child) for child in (thread / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
            continue
    return found


def _fields(pid: int) -> list[str]:
    """/proc/PID/stat after the command name, which may hold spaces and brackets."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def start_time(pid: int) -> str | None:
    """The kernel's start tick of a process, which tells a reused pid; None when there is no such process."""
    try:
        return _fields(pid)[19]
    except (FileNotFoundError, ProcessLookupError):
        return None


def resident_bytes(pids: list[int]) -> int:
    """Private resident memory; what a fork still shares with the zygote is counted once for each."""
    total = 0
    for pid in pids:
        try:
            _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += (int(resident) - int(shared)) * _PAGE
    return total


@dataclass
class CpuMeter:
    """CPU seconds of a tree, never falling.

    Two lower bounds, the larger wins: live processes with the children they waited for; and live processes
    with the last sight of those now gone, which also counts children that nobody waited for. A process that
    lives between two polls and is never waited for escapes both: only a control group sees it.
    """

    root: int
    _gone: float = 0.0
    _live: dict[tuple[int, str], float] = field(default_factory=dict)
    _most: float = 0.0

    def seconds(self) -> float:
        waited, live = 0.0, {}
        for pid in descendants(self.root):
            try:
                row = _fields(pid)
            except (FileNotFoundError, ProcessLookupError):
                continue
            own = (int(row[11]) + int(row[12])) / _TICKS
            waited += own + (int(row[13]) + int(row[14])) / _TICKS
            live[(pid, row[19])] = own
        self._gone += sum(own for key, own in self._live.items() if key not in live)
        self._live = live
        self._most = max(self._most, waited, self._gone + sum(live.values()))
        return self._most


class MemoryWatchdog:
    """Kills the steps below a zygote when they hold more than `limit` bytes; looks ten times a second."""

    def __init__(self, zygote: int, limit: int) -> None:
        self.fired = False
        self.peak = 0
        self._zygote, self._limit = zygote, limit
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory-watchdog", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            steps = descendants(self._zygote)[1:]
            used = resident_bytes(steps)
            self.peak = max(self.peak, used)
            if used > self._limit:
                self.fired = True
                for pid in steps:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue

    def start_over(self) -> None:
        self.fired, self.peak = False, 0

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
