"""A sandbox that lives for many trials: one pristine child a step, everything killed and wiped in between.

    box = Sandbox.start(slot=0, preload=("torch", "numpy"), inside=Path("benchmarks/nanochat/inside"))
    child = box.spawn("train", tree=tar_bytes, args={"seed": 7}, fds={"channel": fd}, log=log_fd)
    child.wait(60)
    box.reset()

How it is fenced: runners/jail.py. What it withstands: runners/isolation.py measures it. Not here: budgets and
clocks. One box serves one step after another; calls may come from any thread.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from runners import cache, isolation
from runners.cgroup import CGroup
from runners.isolation import Isolation
from runners.jail import Jail, Limits
from runners.launch import Launched, SandboxBroken, launch, prepare
from runners.process_tree import CpuMeter, Watchdog
from runners.zygote import receive, send

__all__ = ["Child", "Exit", "Isolation", "Limits", "Sandbox", "SandboxBroken"]
log = logging.getLogger(__name__)
READY_SECONDS = 120.0  # a cold import of torch from a slow disk
ANSWER_SECONDS = 35.0  # above the zygote's own limits for killing and wiping
_SLICE = 0.05
_serials = itertools.count()


@dataclass(frozen=True)
class Exit:
    """How a step ended: its exit code, or the signal that killed it."""

    code: int | None
    signal: int | None

    @property
    def ok(self) -> bool:
        return self.code == 0


@dataclass(frozen=True)
class _Last:
    """What the counters said when the sandbox was closed."""

    cpu_seconds: float
    oom_killed: bool
    memory_peak: int | None


class Child:
    """One step inside the sandbox."""

    def __init__(self, box: Sandbox, request_id: int) -> None:
        self._box, self._id = box, request_id

    def wait(self, timeout: float | None = None) -> Exit:
        """Raises TimeoutError while it still runs, SandboxBroken when the sandbox died under it."""
        status = int(self._box._answer("exit", self._id, timeout)["status"])
        return Exit(status, None) if status >= 0 else Exit(None, -status)

    def kill(self) -> None:
        """Kill the step's own session; daemons it started live until `Sandbox.reset`."""
        self._box._tell({"op": "kill", "id": self._id})


class Sandbox:
    """Made by `start`; must be closed, or is at interpreter exit."""

    def __init__(self, jail: Jail, launched: Launched, group: CGroup | None, setup: dict[str, Any]) -> None:
        self.jail, self.group = jail, group
        self.limits = jail.limits
        self.mechanism = launched.mechanism
        self.zygote_pid = launched.zygote
        self.inside_folder = launched.folder_inside  # as seen from inside
        self._launched, self._setup = launched, setup
        self._lab = os.getpid()
        self._ids = itertools.count()
        self._answers: dict[tuple[str, int], dict[str, Any]] = {}
        self._sending, self._receiving = threading.Lock(), threading.Lock()
        self._closing = threading.RLock()  # re-entrant: a second signal may interrupt the handler of the first
        self._swept = 0
        self._last = _Last(0.0, False, None)
        self._closed = False
        self._poll = select.poll()
        self._poll.register(launched.control, select.POLLIN)
        self._meter = CpuMeter(launched.zygote)
        bounds = jail.limits
        plain = launched.scratch if launched.mechanism != "bwrap" and jail.uid is None else None
        watched = group is None or plain is not None
        watch = (launched.zygote, bounds.memory_bytes, plain, bounds.scratch_bytes)
        self._watchdog = Watchdog(*watch) if watched else None
        atexit.register(self.close)

    @classmethod
    def start(
        cls,
        slot: int = 0,
        *,
        inside: Path,
        preload: Iterable[str] = (),
        preload_also: Iterable[str] = (),
        limits: Limits = Limits(),  # noqa: B008  frozen
        devices: Iterable[str] = (),
        setup_statement: str = "",
        threads: int = 1,
        environment: Mapping[str, str] | None = None,
        loopback: bool = False,
        mechanism: str | None = None,
        jail: type[Jail] = Jail,
    ) -> Sandbox:
        """A sandbox with `preload` imported and `setup_statement` executed over these modules.

        `inside`: the harness, seen read-only as /inside; its modules are the steps. `devices`: nodes such as
        /dev/nvidia0; `preload_also`: what work on these wants imported. `threads`: for OpenMP and BLAS. `loopback`:
        allow sockets other than unix (NCCL wants them). `mechanism`: bwrap, landlock or none; default the best that
        works. `jail`: another plan of the fence, for tests of it. Raises SandboxBroken.
        """
        if sys.platform != "linux":
            raise SandboxBroken("the sandbox needs Linux; attach a Linux machine to run trials")
        plan = jail(slot, inside, limits, tuple(devices), threads, dict(environment or {}), loopback)
        group = CGroup.create(slot, next(_serials), limits.memory_bytes, limits.processes)
        try:
            launched = launch(plan, group, mechanism)
        except SandboxBroken:
            if group is not None:
                group.close()
            raise
        setup = cls._setup_message(plan, launched, group, (*preload, *preload_also), setup_statement)
        box = cls(plan, launched, group, setup)
        try:
            alone = prepare(launched, setup, READY_SECONDS) == 1
        except SandboxBroken:
            box.close()
            raise
        if not alone:
            log.warning("The preloaded modules started threads; a forked step may hang on their locks.")
        return box

    @staticmethod
    def _setup_message(
        jail: Jail, launched: Launched, group: CGroup | None, preload: tuple[str, ...], statement: str
    ) -> dict[str, Any]:
        bounds = jail.limits
        limits = {
            "processes": bounds.processes,
            "open_files": bounds.open_files,
            "file_bytes": bounds.file_bytes,
        }
        if group is None and not jail.devices:  # CUDA reserves far more addresses than it uses
            limits["address_space"] = bounds.memory_bytes + (4 << 30)
        return {
            "preload": list(preload),
            "statement": statement,
            "scratch": launched.scratch,
            "limits": limits,
            "touch": [] if jail.uid is not None else ["/dev/null", "/dev/zero", "/dev/full", *jail.devices],
        }

    # --- talking to the zygote

    def _tell(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        if self._closed:
            raise SandboxBroken("this sandbox is closed")
        try:
            with self._sending:
                send(self._launched.control, message, fds)
        except OSError as problem:
            raise self._died(problem) from problem

    def _died(self, problem: Exception) -> SandboxBroken:
        words = "closed" if self._closed else self._launched.last_words()
        return SandboxBroken(f"the sandbox of slot {self.jail.slot} died ({type(problem).__name__}): {words}")

    def _answer(self, event: str, request_id: int, timeout: float | None) -> dict[str, Any]:
        """The zygote's answer; whichever thread holds the socket files what it hears for the others."""
        key, deadline = (event, request_id), None if timeout is None else time.monotonic() + timeout
        while key not in self._answers:
            left = _SLICE if deadline is None else min(_SLICE, deadline - time.monotonic())
            if left < 0:
                raise TimeoutError(f"{event} did not come within {timeout} s")
            if self._receiving.acquire(timeout=left):
                try:
                    if key not in self._answers:
                        self._hear(left)
                finally:
                    self._receiving.release()
        return self._answers[key]

    def _hear(self, seconds: float) -> None:
        if self._closed:
            raise SandboxBroken("this sandbox is closed")
        if not self._poll.poll(seconds * 1000):
            return
        try:
            message, _ = receive(self._launched.control)
        except (EOFError, OSError) as problem:
            raise self._died(problem) from problem
        self._answers[(message["event"], message["id"])] = message

    # --- steps

    def spawn(
        self,
        name: str,
        *,
        log: int,
        tree: bytes = b"",
        args: Mapping[str, Any] | None = None,
        fds: Mapping[str, int] | None = None,
        cache: bytes = b"",
    ) -> Child:
        """Fork a child that unpacks `tree` (a tar) where it stands and calls main() of /inside/`name`.py.

        `cache` is a snapshot of `read_cache`, of which it gets a copy. Its stdout and stderr go to the descriptor
        `log`; it finds `args` and `fds` in `inside_call`. The caller keeps and closes its own copies of all
        descriptors. Returns once the child is forked.
        """
        return self._spawn(self._launched.folder_inside, name, log, (tree, cache), args or {}, fds or {})

    def read_cache(self) -> bytes:
        """What the steps since the last reset left in /cache, as a tar. Raises CacheTooLarge."""
        with self._receiving:  # `close` waits for it
            if self._closed:
                raise SandboxBroken("this sandbox is closed")
            return cache.take(self._launched.scratch_fd, self.limits.cache_bytes, self.limits.cache_entries)

    def _spawn(
        self, folder: str, name: str, log: int, tars: tuple[bytes, bytes], args: Mapping[str, Any],
        fds: Mapping[str, int],
    ) -> Child:  # fmt: skip
        request_id = next(self._ids)
        request = {"op": "spawn", "id": request_id, "module": name, "folder": folder}
        packed: list[int] = []
        try:
            for tar in tars:
                packed.append(os.memfd_create("tar", os.MFD_CLOEXEC))
                with open(packed[-1], "wb", closefd=False) as target:
                    target.write(tar)
                os.lseek(packed[-1], 0, os.SEEK_SET)
            message = {**request, "args": dict(args), "names": list(fds)}
            self._tell(message, (*packed, log, *fds.values()))
        finally:
            for fd in packed:
                os.close(fd)
        answer = self._answer("spawned", request_id, ANSWER_SECONDS)
        if "refused" in answer:
            raise SandboxBroken(f"the zygote could not fork: {answer['refused']}")
        return Child(self, request_id)

    def _probe(self, args: Mapping[str, Any], fds: Mapping[str, int], log: int) -> Child:
        """Run the lab's own attack probe, which lies beside the zygote."""
        return self._spawn(self._launched.folder_zygote, "probe", log, (b"", b""), args, fds)

    def reset(self) -> None:
        """Kill every process but the zygote, empty the scratch folder and verify. Raises SandboxBroken."""
        request_id = next(self._ids)
        self._tell({"op": "reset", "id": request_id})
        try:
            self._answer("clean", request_id, ANSWER_SECONDS)
        except TimeoutError as late:
            self.close()
            raise SandboxBroken("the sandbox could not be emptied in time") from late
        with self._receiving:
            self._answers = {key: answer for key, answer in self._answers.items() if key[1] >= self._swept}
        self._swept = request_id  # the steps just killed can still be waited for, until the next reset
        if self.group is not None:
            self.group.start_over()
        if self._watchdog is not None:
            self._watchdog.start_over()

    # --- looking and steering from outside

    def pin(self, cpu: int) -> None:
        """Put the zygote, and every child it forks from now on, on one core; they cannot leave it."""
        os.sched_setaffinity(self.zygote_pid, {cpu})

    def cpu_seconds(self) -> float:
        """CPU time of all that ever ran in here, the zygote too. 3 microseconds with control groups."""
        if self._closed:
            return self._last.cpu_seconds
        counted = self.group.cpu_seconds() if self.group is not None else None
        return self._meter.seconds() if counted is None else counted

    def oom_killed(self) -> bool:
        """Was a process killed for memory since the last reset?"""
        if self._closed:
            return self._last.oom_killed
        if self.group is not None:
            return self.group.oom_killed()
        return self._watchdog is not None and self._watchdog.out_of_memory

    def memory_peak(self) -> int | None:
        """Most bytes held at once since the last reset, the zygote and the scratch folder included."""
        if self._closed:
            return self._last.memory_peak
        if self.group is not None:
            return self.group.memory_peak()
        return None if self._watchdog is None else self._watchdog.peak

    @cached_property
    def isolation(self) -> Isolation:
        """What an attack probe could do in here; measured at the first look (0.1 s, resets the box)."""
        return isolation.measure(self)

    def close(self) -> None:
        """Kill everything and remove every trace. Safe to call again, from any thread; nothing in a fork of the lab."""
        if os.getpid() != self._lab:
            return
        with self._closing:
            if self._closed:
                return
            self._last = _Last(self.cpu_seconds(), self.oom_killed(), self.memory_peak())
            self._closed = True
        atexit.unregister(self.close)
        if self._watchdog is not None:
            self._watchdog.stop()
        with self._receiving:
            self._launched.end()
        if self.group is not None:
            self.group.close()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
