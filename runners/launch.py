"""Starting one sandbox: the guardian, the sandbox below it, the zygote's first words. Best first."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runners import landlock
from runners.cgroup import CGroup
from runners.jail import Jail, find_bwrap
from runners.zygote import receive, send

log = logging.getLogger(__name__)
START_SECONDS = 20.0
MECHANISMS = ("bwrap", "landlock", "none")


class SandboxBroken(Exception):
    """The sandbox is gone or cannot be trusted; the message says why. Start a new one."""


class NotHere(Exception):
    """This mechanism does not work on this host; the next one is tried."""


@dataclass
class Launched:
    """A running zygote and what the lab holds of it."""

    mechanism: str
    control: socket.socket
    guardian: subprocess.Popen[bytes]
    complaints: int  # what zygote and guardian wrote to their standard error
    zygote: int  # its pid as the host sees it
    pidfd: int
    scratch: str
    folder_inside: str
    folder_zygote: str
    scratch_fd: int = -1  # the scratch folder, once the zygote is ready

    def last_words(self) -> str:
        return read_back(self.complaints) or "no message"

    def end(self) -> None:
        """Kill pid 1, and with it the namespace; the guardian cleans up. Safe to call once only."""
        self.control.close()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        _finish(self.guardian)
        os.close(self.pidfd)
        os.close(self.complaints)
        if self.scratch_fd >= 0:
            os.close(self.scratch_fd)


def read_back(fd: int) -> str:
    text = os.pread(fd, 1 << 16, max(0, os.fstat(fd).st_size - (1 << 16))).decode("utf-8", "replace")
    return text.strip()


def _finish(guardian: subprocess.Popen[bytes]) -> None:
    try:
        guardian.wait(10)
    except subprocess.TimeoutExpired:
        guardian.kill()
        guardian.wait()


def _plan(jail: Jail, mechanism: str, group: CGroup | None, fds: dict[str, int]) -> dict[str, Any]:
    root = jail.uid is not None
    plan: dict[str, Any] = {
        "lab": os.getpid(),
        "uid": jail.uid,
        "slot_folder": str(jail.slot_folder),
        "binds": jail.sources(),
        "cgroups": [str(folder) for folder in group.folders] if group else [],
        "fence": None,
        "temporary": None,
    }
    if mechanism == "bwrap":
        program = find_bwrap()
        if program is None:
            raise NotHere("bubblewrap is not installed (apt-get install bubblewrap)")
        plan["argv"] = jail.bwrap(program, fds["control"], fds["info"], fds["filter"])
        plan["environment"] = {"PATH": "/usr/bin:/bin"}
        return plan | {"scratch": "/scratch", "folder_inside": "/inside", "folder_zygote": "/zygote"}
    if mechanism == "landlock" and landlock.abi() < landlock.NEEDED_ABI:
        raise NotHere(f"no landlock of version {landlock.NEEDED_ABI} (Linux 6.7)")
    scratch = str(jail.slot_folder / "scratch") if root else tempfile.mkdtemp(prefix="recursive-lab-")
    zygote = jail.source("zygote/zygote.py")
    return plan | {
        "argv": jail.python(zygote, fds["control"]),
        "environment": jail.clean_environment(scratch),
        "fence": jail.fence(scratch, landlocked=mechanism == "landlock"),
        "expose": jail.interpreter(),
        "scratch_bytes": jail.limits.scratch_bytes,
        "temporary": None if root else scratch,
        "scratch": scratch,
        "folder_inside": jail.source("inside"),
        "folder_zygote": str(Path(zygote).parent),
    }


def _zygote_pid(info: int) -> int:
    """bwrap's word on the pid of what it started, as the host numbers it."""
    text, deadline, waiting = b"", time.monotonic() + START_SECONDS, select.poll()
    waiting.register(info, select.POLLIN)
    while time.monotonic() < deadline:
        if waiting.poll(100):
            block = os.read(info, 4096)
            text += block
            with contextlib.suppress(json.JSONDecodeError):
                return int(json.loads(text)["child-pid"])
            if not block:
                break
    raise NotHere("bwrap did not say which process it started")


def _try(jail: Jail, mechanism: str, group: CGroup | None) -> Launched:
    control, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    complaints, filter_fd = os.memfd_create("complaints"), os.memfd_create("filter")
    os.write(filter_fd, jail.filter())
    os.lseek(filter_fd, 0, os.SEEK_SET)
    info, info_far = os.pipe()
    given = (far.fileno(), info_far, filter_fd)
    try:
        plan = _plan(jail, mechanism, group, {"control": given[0], "info": given[1], "filter": given[2]})
        guardian = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", str(jail.guardian), json.dumps(plan)],
            stdin=subprocess.DEVNULL,
            stdout=complaints,
            stderr=complaints,
            pass_fds=given,
            env={},
            start_new_session=True,
        )
        far.close()
        os.close(info_far)
        info_far = -1
        control.settimeout(START_SECONDS)
        try:
            alive, _ = receive(control)
            pid = alive["pid"] if mechanism != "bwrap" else _zygote_pid(info)
            pidfd = os.pidfd_open(pid)
        except (EOFError, OSError, NotHere) as problem:
            control.close()
            guardian.kill()
            _finish(guardian)
            if plan["temporary"]:
                shutil.rmtree(plan["temporary"], ignore_errors=True)
            raise NotHere(read_back(complaints) or repr(problem)) from problem
        words = os.dup(complaints)
    except BaseException:
        control.close()
        raise
    finally:
        far.close()
        for fd in (complaints, filter_fd, info, *([info_far] if info_far >= 0 else [])):
            os.close(fd)
    places = (plan["scratch"], plan["folder_inside"], plan["folder_zygote"])
    return Launched(mechanism, control, guardian, words, pid, pidfd, *places)


def launch(jail: Jail, group: CGroup | None, mechanism: str | None = None) -> Launched:
    """Start with `mechanism`, or with the best that works and one warning about what is missing.

    Raises SandboxBroken when none works.
    """
    missing = []
    for name in MECHANISMS if mechanism is None else (mechanism,):
        try:
            launched = _try(jail, name, group)
        except NotHere as reason:
            missing.append(f"{name}: {reason}")
            continue
        if missing:
            log.warning("Sandbox falls back to %r. Missing: %s", name, "; ".join(missing))
        return launched
    raise SandboxBroken("no sandbox can be started here: " + "; ".join(missing))


def prepare(launched: Launched, setup: dict[str, Any], seconds: float) -> int:
    """Let the zygote import its modules; returns how many threads it then has. Raises SandboxBroken."""
    launched.control.settimeout(seconds)
    try:
        send(launched.control, setup)
        ready, (launched.scratch_fd,) = receive(launched.control)
    except (EOFError, OSError) as problem:
        raise SandboxBroken(f"the zygote did not get ready: {launched.last_words()}") from problem
    return int(ready["threads"])
