"""Reading /proc from outside a sandbox: processes, CPU time, memory. For hosts without control groups."""

from __future__ import annotations

import contextlib
import itertools
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


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


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


def bytes_below(folder: str) -> float:
    """What the files below a folder take on the disk; infinite where one is closed: nobody may hide what it wrote."""
    total = 0.0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                total += entry.stat(follow_symlinks=False).st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    total += bytes_below(entry.path)
    except FileNotFoundError:  # removed while we looked
        return total
    except OSError:  # closed, or a nest deeper than a path can be
        return float("inf")
    return total


class Watchdog:
    """Kills the steps below a zygote when they hold more than `memory` bytes, or `disk` bytes below `scratch`.

    Looks at memory ten times a second. `scratch` is only given where it is a plain folder, without a size of its own.
    """

    def __init__(self, zygote: int, memory: int, scratch: str | None, disk: int) -> None:
        self.out_of_memory = False
        self.peak = 0
        self._zygote, self._memory, self._scratch, self._disk = zygote, memory, scratch, disk
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        for turn in itertools.count():
            if self._stop.wait(0.1):
                return
            steps = descendants(self._zygote)[1:]
            used = resident_bytes(steps)
            self.peak = max(self.peak, used)
            if used > self._memory:
                self.out_of_memory = True
                _kill(steps)
            elif self._scratch and turn % 10 == 0 and steps and bytes_below(self._scratch) > self._disk:
                _kill(steps)

    def start_over(self) -> None:
        self.out_of_memory, self.peak = False, 0

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
