"""Keep the processes of an embedded lab alive: start, restart with back-off, stop together, die together.

A child never outlives the supervisor (PR_SET_PDEATHSIG), not even a killed one. One supervisor a data folder: a lock
file that the kernel frees with the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PR_SET_PDEATHSIG = 1
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
CALM_SECONDS = 60.0  # after living this long, the next restart is quick again
STOP_SECONDS = 8.0


class AlreadyRunning(RuntimeError):
    """Another supervisor works on this data folder."""


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the data folder's lock. Raises AlreadyRunning with one line that says who has it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise AlreadyRunning(
                f"the data folder {folder} is in use by {holder}; stop it, or choose another folder with --data"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()}")
        file.flush()
        yield


@dataclass
class Child:
    name: str
    command: Sequence[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = FIRST_PAUSE
    due: float = 0.0
    restarts: int = 0


@dataclass
class Supervisor:
    """Call `tick` regularly from the main thread; leave the context to stop all children."""

    logs: Path
    environment: dict[str, str] = field(default_factory=dict)
    children: list[Child] = field(default_factory=list)

    def __enter__(self) -> Supervisor:
        self.logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def add(self, name: str, *arguments: str) -> None:
        """Supervise `manage.py ARGUMENTS`."""
        manage = Path(__file__).resolve().parent.parent / "manage.py"
        child = Child(name, [sys.executable, str(manage), *arguments], self.logs / f"{name}.log")
        self.children.append(child)
        self._start(child)

    def tick(self) -> list[str]:
        """Start what has died and waited long enough. Returns one line for each death seen."""
        news = []
        for child in self.children:
            if child.process is not None and (code := child.process.poll()) is not None:
                news.append(f"{child.name} ended ({code}); it is started again, see {child.log}")
                lived = time.monotonic() - child.started
                child.pause = FIRST_PAUSE if lived > CALM_SECONDS else min(2 * child.pause, LONGEST_PAUSE)
                child.process, child.due = (
                    None,
                    time.monotonic() + (0 if lived > CALM_SECONDS else child.pause / 2),
                )
                child.restarts += 1
            if child.process is None and time.monotonic() >= child.due:
                self._start(child)
        return news

    def stop(self) -> None:
        """Ask, wait, then kill. In reverse order of starting."""
        running = [child for child in reversed(self.children) if child.process is not None]
        for child in running:
            with contextlib.suppress(ProcessLookupError):
                child.process.terminate()  # type: ignore[union-attr]
        deadline = time.monotonic() + STOP_SECONDS
        for child in running:
            assert child.process is not None
            try:
                child.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.process.pid, signal.SIGKILL)
                child.process.wait()
            child.process = None

    def _start(self, child: Child) -> None:
        with child.log.open("ab") as log:
            child.process = subprocess.Popen(
                child.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, **self.environment}, preexec_fn=_DieWithParent(os.getpid()),
            )  # fmt: skip
        child.started = time.monotonic()


class _DieWithParent:
    """Runs between fork and exec: the kernel sends SIGTERM to the child when its parent dies, however that happens."""

    def __init__(self, parent: int) -> None:
        self.parent = parent
        self.libc = ctypes.CDLL(None)

    def __call__(self) -> None:
        self.libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != self.parent:
            os._exit(1)
