"""Keep the processes of an embedded lab alive: start, restart with back-off, stop together, die together.

A child never outlives the supervisor (PR_SET_PDEATHSIG), not even a killed one. One supervisor a data folder: a lock
file that the kernel frees with the process. The web's socket belongs to the supervisor, so that a browser which calls
while the web process is away waits for it instead of being refused.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import socket
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
PORT_PATIENCE = 3.0  # so long may the processes of a killed lab hold its port
LARGEST_LOG = 8 << 20
BACKLOG = 128
QUICK_SECONDS, REMIND_SECONDS = 10.0, 600.0  # what dies quickly, the same way, is told of only so often


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


class PortTaken(RuntimeError):
    """Nothing can listen there; the text says what to do."""


@contextmanager
def listening(host: str, port: int, patience: float = PORT_PATIENCE) -> Iterator[socket.socket]:
    """A socket that listens on an IPv4 address. Raises PortTaken with one line."""
    deadline = time.monotonic() + patience
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        while True:
            try:
                listener.bind((host, port))
                listener.listen(BACKLOG)
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    words = error.strerror or "no such address"
                    raise PortTaken(f"cannot listen on {host} port {port}: {words}") from None
                if time.monotonic() > deadline:
                    raise PortTaken(
                        f"port {port} is taken by another program; choose a free one: PORT={port % 65535 + 1} make run"
                    ) from None
            time.sleep(0.1)
        yield listener


@dataclass
class Child:
    name: str
    command: Sequence[str]
    log: Path
    until_done: bool = False  # a task: not started again once it has ended well
    sockets: tuple[int, ...] = ()  # descriptors handed down
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = FIRST_PAUSE
    due: float = 0.0
    restarts: int = 0
    told: tuple[str, float] = ("", 0.0)  # the newest line about it, and when


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

    def add(self, name: str, *arguments: str, until_done: bool = False, sockets: tuple[int, ...] = ()) -> None:
        """Supervise `manage.py ARGUMENTS`."""
        manage = Path(__file__).resolve().parent.parent / "manage.py"
        command = [sys.executable, str(manage), *arguments]
        child = Child(name, command, self.logs / f"{name}.log", until_done, sockets)
        self.children.append(child)
        self._start(child)

    def tick(self) -> list[str]:
        """Start what has died and waited long enough. Returns one line for each death, unless it repeats itself."""
        news = []
        for child in list(self.children):
            if child.process is not None and (code := child.process.poll()) is not None:
                if child.until_done and code == 0:
                    self.children.remove(child)
                    continue
                news += self._bury(child, code)
            if child.process is None and time.monotonic() >= child.due:
                self._start(child)
        return news

    def _bury(self, child: Child, code: int) -> list[str]:
        """It comes back at once, unless it has just been started again. Says why it died."""
        now = time.monotonic()
        lived = now - child.started
        calm = lived > CALM_SECONDS
        child.pause = FIRST_PAUSE if calm else min(2 * child.pause, LONGEST_PAUSE)
        child.process, child.due = None, now + (0.0 if calm or not child.restarts else child.pause / 2)
        child.restarts += 1
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        why = f": {words}" if code > 0 and (words := last_line(child.log)) else ""
        line = f"{child.name} {how}{why}; it starts again (log: {child.log})"
        told, at = child.told
        if told == line and lived < QUICK_SECONDS and now - at < REMIND_SECONDS:
            return []
        child.told = line, now
        return [line]

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
                child.process.kill()
                child.process.wait()
            with contextlib.suppress(ProcessLookupError):  # what it has started and left behind
                os.killpg(child.process.pid, signal.SIGKILL)
            child.process = None

    def _start(self, child: Child) -> None:
        with contextlib.suppress(FileNotFoundError):
            if child.log.stat().st_size > LARGEST_LOG:
                child.log.replace(child.log.with_suffix(".old.log"))
        with child.log.open("ab") as log:
            child.process = subprocess.Popen(
                child.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, **self.environment}, preexec_fn=_DieWithParent(os.getpid()),
                pass_fds=child.sockets,
            )  # fmt: skip
        child.started = time.monotonic()


def last_line(log: Path, length: int = 300) -> str:
    """The last words of a child, as one printable line."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
    except FileNotFoundError:  # somebody tidied up
        return ""
    text = lines[-1] if lines else ""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:length].strip()


class _DieWithParent:
    """Runs between fork and exec: the kernel sends SIGTERM to the child when its parent dies, however that happens."""

    def __init__(self, parent: int) -> None:
        self.parent = parent
        self.libc = ctypes.CDLL(None)

    def __call__(self) -> None:
        self.libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != self.parent:
            os._exit(1)
