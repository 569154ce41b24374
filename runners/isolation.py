"""The isolation level of a sandbox, measured: what the attack probe inside and a look from outside find.

Never configured. Asked once when a worker starts; a level below 2 may only screen code from outside the lab.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runners import process_tree, seccomp

if TYPE_CHECKING:
    from runners.sandbox import Child, Sandbox

NAMES = {
    4: "virtual machine",
    3: "full sandbox",
    2: "sandbox without control group or own user",
    1: "landlock only",
    0: "none",
}
# What landlock, the system call filter and a clean start can hold without namespaces.
FENCE_ROWS = frozenset(
    (
        "answered",
        "hidden_file",
        "inherited_descriptors",
        "trusted_files",
        "network",
        "capture",
        "nested_namespaces",
        "kernel_surfaces",
        "lasting_objects",
        "wall_clock",
        "environment",
        "kernel_settings",
        "scheduling",
        "writable_places",
        "identity",
        "daemons_killed",
    )
)
# What level 3 asks beyond the rest of the rows.
FULL_ROWS = frozenset(("memory_cap", "process_cap", "own_user", "device_times", "device_kernel"))
_DAEMONS = 3
_PROBE_SECONDS = 20.0
_SECRET = b"a hidden file of the lab"


@dataclass(frozen=True)
class ProbeRow:
    """One attack or limit; `passed` means the sandbox held."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Isolation:
    """What a sandbox withstood. Level 4, a machine of its own per trial, is never measured from inside."""

    level: int
    name: str
    rows: tuple[ProbeRow, ...]

    @property
    def failed(self) -> tuple[ProbeRow, ...]:
        return tuple(row for row in self.rows if not row.passed)


def level_of(rows: tuple[ProbeRow, ...]) -> int:
    """3 when every row passed, 2 without control groups or own user, 1 for the fence alone, else 0."""
    failed = {row.name for row in rows if not row.passed}
    missing = (FENCE_ROWS | FULL_ROWS) - {row.name for row in rows}
    failed |= missing
    if not failed:
        return 3
    if failed <= FULL_ROWS:
        return 2
    return 0 if failed & FENCE_ROWS else 1


@contextlib.contextmanager
def _bait() -> Iterator[dict[str, Any]]:
    """Things of the host a sandbox must not reach: a private file and two listeners."""
    with (
        tempfile.TemporaryDirectory(prefix="recursive-lab-bait-") as folder,
        socket.socket() as tcp,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        hidden = Path(folder) / "hidden"
        hidden.write_bytes(_SECRET)
        name = f"recursive-lab-{os.getpid()}-{time.monotonic_ns()}"
        tcp.bind(("127.0.0.1", 0))
        abstract.bind("\0" + name)
        for listener in (tcp, abstract):
            listener.listen(4)
        yield {"hidden": str(hidden), "port": tcp.getsockname()[1], "abstract": name}


def _read(fd: int, child: Child | None, wanted: int | None = None) -> bytes:
    """Until the end, or `wanted` bytes, or the time is over."""
    data, deadline, poll = b"", time.monotonic() + _PROBE_SECONDS, select.poll()
    poll.register(fd, select.POLLIN)
    while time.monotonic() < deadline and (wanted is None or len(data) < wanted):
        if poll.poll(100):
            block = os.read(fd, 1 << 16)
            if not block:
                break
            data += block
    if child is not None:
        with contextlib.suppress(TimeoutError):
            child.wait(1)
    return data


def _attack(box: Sandbox) -> list[ProbeRow]:
    """The rows of the probe inside."""
    column = seccomp.ARCHITECTURES[os.uname().machine][0]
    numbers = {name: pair[column] for name, pair in seccomp.DENIED.items()}
    with _bait() as bait, tempfile.TemporaryFile() as log:
        args = bait | {
            "numbers": numbers,
            "inside": box.inside_folder,
            "devices": list(box.jail.devices),
            "environment": list(box.jail.clean_environment("")),
            "scratch_bytes": box.limits.scratch_bytes,
        }
        report, far = os.pipe()
        try:
            child = box._probe(args, {"report": far}, log.fileno())
            os.close(far)
            far = -1
            text = _read(report, child)
        finally:
            for fd in (report, far):
                if fd >= 0:
                    os.close(fd)
        log.seek(0)
        words = log.read(2000).decode("utf-8", "replace")
    box.reset()
    rows = [ProbeRow(*row) for row in json.loads(text)] if text else []
    return [ProbeRow("answered", bool(rows), words.strip() or f"{len(rows)} attacks tried"), *rows]


def _leave_daemons(box: Sandbox) -> ProbeRow:
    """Do processes that left every group survive a reset?"""
    with tempfile.TemporaryFile() as log:
        report, far = os.pipe()
        try:
            child = box._probe({"daemons": _DAEMONS}, {"report": far}, log.fileno())
            os.close(far)
            far = -1
            started = len(_read(report, child, _DAEMONS))
            pids = process_tree.descendants(box.zygote_pid)[1:]
            before = time.monotonic()
            box.reset()
            seconds = time.monotonic() - before
        finally:
            for fd in (report, far):
                if fd >= 0:
                    os.close(fd)
    alive = sum(process_tree.start_time(pid) is not None for pid in pids)
    passed = started == _DAEMONS and len(pids) >= _DAEMONS and not alive
    return ProbeRow("daemons_killed", passed, f"{alive} of {started} alive {seconds * 1000:.0f} ms after the order")


def _caps(box: Sandbox) -> list[ProbeRow]:
    if box.group is None:
        return [ProbeRow(name, False, "no control group") for name in ("memory_cap", "process_cap")]
    memory, processes = box.group.caps()
    return [
        ProbeRow("memory_cap", memory <= box.limits.memory_bytes, f"{memory} bytes"),
        ProbeRow("process_cap", processes <= box.limits.processes, f"{processes} processes"),
    ]


def measure(box: Sandbox) -> Isolation:
    """Attack an idle sandbox; resets it. Raises SandboxBroken when the attack broke it."""
    own = box.jail.uid is not None
    rows = (
        *_attack(box),
        _leave_daemons(box),
        *_caps(box),
        ProbeRow("own_user", own, "a uid of the slot" if own else "the user of the lab"),
    )
    level = level_of(rows)
    return Isolation(level, NAMES[level], rows)
