"""The control group of one sandbox: memory and process caps, CPU time, out-of-memory count. Version 2 or 1.

Made below the lab's own group, so that an outer limit still holds; removed by `close`, by the guardian when
the lab dies, or by the next start. Where none can be made `CGroup.create` says None, and rlimits with a
watchdog take over.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from runners import process_tree
from runners.guardian import remove_cgroup

PREFIX = "recursive-lab"
_NAME = re.compile(rf"{PREFIX}-(\d+)-(\d+)-\d+-\d+")


@dataclass(frozen=True)
class Hierarchy:
    """One mounted control group tree and where this process stands in it."""

    version: int
    controllers: frozenset[str]
    mount: Path
    own: Path


def hierarchies(mountinfo: str, memberships: str) -> list[Hierarchy]:
    """From the text of /proc/self/mountinfo and /proc/self/cgroup."""
    places: dict[frozenset[str], str] = {}
    for line in memberships.splitlines():
        _, names, path = line.split(":", 2)
        places[frozenset(names.split(",")) if names else frozenset()] = path
    found = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split()[:3]
        if kind not in ("cgroup", "cgroup2"):
            continue
        root, mount = left.split()[3], Path(left.split()[4])
        mounted = frozenset(options.split(",")) if kind == "cgroup" else frozenset()
        joined = next((key for key in places if key <= mounted and bool(key) == bool(mounted)), None)
        if joined is None:
            continue
        inside = os.path.relpath(places[joined], root)
        own = mount if inside.startswith("..") else mount / inside
        found.append(Hierarchy(2 if kind == "cgroup2" else 1, joined, mount, own if own.is_dir() else mount))
    return found


def _parents(place: Hierarchy) -> list[Path]:
    """Where a child group may be made, nearest first."""
    above = [folder for folder in place.own.parents if folder.is_relative_to(place.mount)]
    return [place.own, *above]


def _v2_parent(place: Hierarchy) -> Path | None:
    """The nearest group that hands memory and pids to its children, or can be told to."""
    for folder in _parents(place):
        with contextlib.suppress(OSError):
            switches = folder / "cgroup.subtree_control"
            if not {"memory", "pids"} <= set(switches.read_text().split()):
                switches.write_text("+memory +pids")
            if os.access(folder, os.W_OK):
                return folder
    return None


def _sweep(parent: Path) -> None:
    """Remove the groups of labs that died."""
    for folder in parent.glob(f"{PREFIX}-*"):
        match = _NAME.fullmatch(folder.name)
        if match and process_tree.start_time(int(match[1])) != match[2]:
            remove_cgroup(folder, 0.5)


def _make(parent: Path, name: str) -> Path:
    _sweep(parent)
    folder = parent / name
    folder.mkdir()
    return folder


@dataclass
class CGroup:
    """The folders of one sandbox: one in version 2, one a controller in version 1."""

    version: int
    memory: Path
    pids: Path
    cpu: Path | None
    _usage: int = -1
    _kills_before: int = 0
    _peak_fd: int = -1

    @classmethod
    def create(cls, slot: int, serial: int, memory_bytes: int, processes: int) -> CGroup | None:
        """Make it and set the caps. None where this user may not, or the kernel has no such controllers."""
        places = hierarchies(Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text())
        name = f"{PREFIX}-{os.getpid()}-{process_tree.start_time(os.getpid())}-{slot}-{serial}"
        group = cls._create_v1(places, name) or cls._create_v2(places, name)
        if group is None:
            return None
        try:
            group._cap(memory_bytes, processes)
        except OSError:
            group.close()
            return None
        return group

    @classmethod
    def _create_v1(cls, places: list[Hierarchy], name: str) -> CGroup | None:
        folders: dict[str, Path] = {}
        for place in places:
            wanted = place.controllers & {"memory", "pids", "cpuacct"}
            if place.version == 1 and wanted:
                with contextlib.suppress(OSError):
                    folders.update(dict.fromkeys(wanted, _make(place.own, name)))
        if {"memory", "pids"} <= folders.keys():
            return cls(1, folders["memory"], folders["pids"], folders.get("cpuacct"))
        for folder in set(folders.values()):
            remove_cgroup(folder)
        return None

    @classmethod
    def _create_v2(cls, places: list[Hierarchy], name: str) -> CGroup | None:
        for place in places:
            parent = _v2_parent(place) if place.version == 2 else None
            if parent is not None:
                with contextlib.suppress(OSError):
                    folder = _make(parent, name)
                    return cls(2, folder, folder, folder)
        return None

    def _cap(self, memory_bytes: int, processes: int) -> None:
        (self.pids / "pids.max").write_text(str(processes))
        if self.version == 2:
            (self.memory / "memory.max").write_text(str(memory_bytes))
            swap = self.memory / "memory.swap.max"
            if swap.exists():
                swap.write_text("0")
        else:
            (self.memory / "memory.limit_in_bytes").write_text(str(memory_bytes))
            swap = self.memory / "memory.memsw.limit_in_bytes"
            if swap.exists():
                swap.write_text(str(memory_bytes))
        if self.cpu is not None:
            name = "cpu.stat" if self.version == 2 else "cpuacct.usage"
            self._usage = os.open(self.cpu / name, os.O_RDONLY | os.O_CLOEXEC)
        self.start_over()

    @property
    def folders(self) -> list[Path]:
        return list(dict.fromkeys(folder for folder in (self.memory, self.pids, self.cpu) if folder is not None))

    def caps(self) -> tuple[int, int]:
        """(memory in bytes, processes) as the kernel states them."""
        name = "memory.max" if self.version == 2 else "memory.limit_in_bytes"
        return int((self.memory / name).read_text()), int((self.pids / "pids.max").read_text())

    def cpu_seconds(self) -> float | None:
        """CPU time of all that was ever in the group; 2 microseconds a call. None without a counter."""
        if self._usage < 0:
            return None
        text = os.pread(self._usage, 512, 0)
        if self.version == 1:
            return int(text) / 1e9
        return int(text.split()[1]) / 1e6

    def _kills(self) -> int:
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        rows = dict(line.split() for line in (self.memory / name).read_text().splitlines())
        return int(rows.get("oom_kill", 0))

    def oom_killed(self) -> bool:
        """Has the kernel killed one of ours for memory since `start_over`?"""
        return self._kills() > self._kills_before

    def memory_peak(self) -> int | None:
        """Most bytes in use since `start_over` (since the beginning in version 2 before Linux 6.12)."""
        if self.version == 1:
            return int((self.memory / "memory.max_usage_in_bytes").read_text())
        return int(os.pread(self._peak_fd, 64, 0)) if self._peak_fd >= 0 else None

    def start_over(self) -> None:
        self._kills_before = self._kills()
        if self.version == 1:
            (self.memory / "memory.max_usage_in_bytes").write_text("0")
            return
        for mode in (
            os.O_RDWR,
            os.O_RDONLY,
        ):  # only Linux 6.12 can forget a peak, through the descriptor that reads it
            if self._peak_fd < 0:
                with contextlib.suppress(OSError):
                    self._peak_fd = os.open(self.memory / "memory.peak", mode | os.O_CLOEXEC)
        if self._peak_fd >= 0:
            with contextlib.suppress(OSError):
                os.pwrite(self._peak_fd, b"reset", 0)

    def close(self) -> None:
        for fd in (self._usage, self._peak_fd):
            if fd >= 0:
                os.close(fd)
        self._usage = self._peak_fd = -1
        for folder in self.folders:
            remove_cgroup(folder)
