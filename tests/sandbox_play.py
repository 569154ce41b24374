"""Playing one step in a real sandbox, for the sandbox tests. No fixture here, no mock anywhere."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runners.logs import LogPump
from runners.sandbox import Child, Exit, Limits, Sandbox

INSIDE = Path(__file__).parent / "sandbox_inside"
SMALL = Limits(memory_bytes=512 << 20, processes=48, scratch_bytes=64 << 20, file_bytes=32 << 20)
ROOT = os.geteuid() == 0


def need(available: bool, what: str) -> None:
    """Fail in CI, where everything must be there; elsewhere skip with the reason."""
    if not available:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"this test needs {what}")


def need_full_sandbox() -> None:
    need(ROOT, "root (each slot gets a user and a control group of its own)")
    need(shutil.which("bwrap") is not None, "bubblewrap (apt-get install bubblewrap)")


def public_python() -> str:
    """An interpreter any user may start: an interpreter under a closed home serves the lab's root only."""
    for candidate in (
        Path(sys.executable).resolve(),
        Path("/usr/bin/python3"),
        Path("/usr/local/bin/python3"),
    ):
        if candidate.exists() and all(folder.stat().st_mode & 1 for folder in candidate.resolve().parents):
            return str(candidate)
    return ""


def pack(**files: str) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"{name}.py")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return target.getvalue()


@dataclass
class Step:
    """A started step: its child, its log, the pipe of its answer."""

    child: Child
    pump: LogPump
    answer_fd: int

    def answer(self) -> Any:
        """Its answer, one line; None when it ended without one. Not to the end: forks may hold the pipe open."""
        text = b""
        while not text.endswith(b"\n") and (block := os.read(self.answer_fd, 1 << 16)):
            text += block
        return json.loads(text) if text else None


@contextmanager
def step(
    box: Sandbox, do: str, tree: bytes = b"", fds: dict[str, int] | None = None, cache: bytes = b"", **args: Any
) -> Iterator[Step]:
    """Start `do` of sandbox_inside/attack.py; the box is reset afterwards, whatever happened."""
    read, write = os.pipe()
    log_read, log_write = os.pipe()
    pump = LogPump(log_read)
    try:
        named = {"answer": write, **(fds or {})}
        child = box.spawn("attack", tree=tree, args={"do": do, **args}, fds=named, log=log_write, cache=cache)
        os.close(write)
        os.close(log_write)
        write = log_write = -1
        yield Step(child, pump, read)
    finally:
        for fd in (read, write, log_write):
            if fd >= 0:
                os.close(fd)
        box.reset()
        pump.join(5)


def play(box: Sandbox, do: str, tree: bytes = b"", **args: Any) -> tuple[Exit, Any, str]:
    """Run `do` to its end: (exit, answer, log)."""
    with step(box, do, tree, **args) as running:
        exit = running.child.wait(30)
        answer = running.answer()
    return exit, answer, running.pump.text()
