"""The small process between the lab and a sandbox: `python -I -S guardian.py <plan as JSON>`.

Started as root it makes the interpreter visible to the slot's own uid (private mount namespace, read-only
binds under /run), and starts the sandbox as that uid: bwrap started by root would leave
/proc/sys/kernel/core_pattern writable. Then it watches. It follows the lab by pidfd and not by
PR_SET_PDEATHSIG, which fires when the starting *thread* ends. When the lab dies, even by kill -9, it ends the
sandbox and removes its control groups; when it is killed itself, bwrap's --die-with-parent does the first
half. Standard library and two siblings only, so that it starts in 20 ms.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import resource
import select
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parent.parent))

from runners import landlock, seccomp  # noqa: E402

SLOT_ROOT = Path("/run/recursive-lab")
_NEWNS, _RDONLY, _REMOUNT, _BIND, _REC, _PRIVATE = 0x20000, 1, 32, 4096, 16384, 1 << 18
_NOSUID, _NODEV, _PDEATHSIG, _NO_NEW_PRIVILEGES = 2, 4, 1, 38


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _mount(source: str, target: Path, kind: str, flags: int, data: str = "") -> None:
    if _libc().mount(source.encode(), os.fsencode(target), kind.encode(), flags, data.encode()):
        raise OSError(ctypes.get_errno(), f"mount {source} on {target}")


def _bind(source: Path, target: Path) -> None:
    """A read-only view of a folder or file; of a device node that is its mode and times, not its data."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        target.mkdir(exist_ok=True)
    else:
        target.touch()
    _mount(str(source), target, "", _BIND | _REC)
    _mount("", target, "", _REMOUNT | _BIND | _RDONLY | _NOSUID)


def gather(slot_folder: Path, binds: dict[str, str]) -> None:
    """Bind every source under the slot folder, in a mount namespace that ends with this process."""
    if _libc().unshare(_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare the mount namespace")
    _mount("none", Path("/"), "", _REC | _PRIVATE)
    slot_folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    _mount("slot", slot_folder, "tmpfs", _NOSUID, "mode=755,size=1m")
    for name, source in binds.items():
        _bind(Path(source), slot_folder / name)


def _closed_ancestor(path: Path) -> Path | None:
    """The first folder above `path` that others may not pass."""
    existing = (folder for folder in reversed(path.parents) if folder.exists())
    return next((folder for folder in existing if not folder.stat().st_mode & 1), None)


def expose(slot_folder: Path, binds: dict[str, str]) -> None:
    """Without bwrap the paths must work where they are: cover each closed folder above by an empty one."""
    for name, source in binds.items():
        path = Path(source)
        closed = _closed_ancestor(path)
        if closed is not None:
            _mount("open", closed, "tmpfs", _NOSUID, "mode=755,size=1m")
        if not path.exists():
            _mount_again(slot_folder / name, path)


def _mount_again(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        target.mkdir()
    else:
        target.touch()
    _mount(str(source), target, "", _BIND | _REC)


def _drop(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def _start(plan: dict[str, Any]) -> NoReturn:
    """In the child: join the groups, become the slot's user, close what is open, execute."""
    for group in plan["cgroups"]:
        (Path(group) / "cgroup.procs").write_text("0")
    if plan["uid"] is not None:
        _drop(plan["uid"])
    if os.geteuid() == 0:
        sys.exit("the guardian starts no sandbox as root: it could write /proc/sys/kernel/core_pattern")
    libc = _libc()
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # after the uid change, which clears it
    if os.getppid() != plan["guardian"]:
        os._exit(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    fence = plan["fence"]
    if fence is not None:
        if fence["landlock"]:
            paths = {name: [Path(item) for item in fence[name]] for name in ("readable", "devices", "writable")}
            landlock.restrict(**paths)
        seccomp.install(base64.b64decode(fence["seccomp"]))
    argv = plan["argv"]
    os.execve(argv[0], argv, plan["environment"])


def _watch(lab: int, sandbox: int) -> None:
    """Until the sandbox ends by itself or the lab is gone."""
    ends = select.poll()
    ends.register(lab, select.POLLIN)
    ends.register(sandbox, select.POLLIN)
    ready = {fd for fd, _ in ends.poll()}
    if sandbox not in ready:
        signal.pidfd_send_signal(sandbox, signal.SIGKILL)


def remove_cgroup(folder: Path, seconds: float = 2.0) -> None:
    """Kill what is in a control group and remove it; what stays is cleaned by the next start."""
    deadline = time.monotonic() + seconds
    while folder.exists() and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            for pid in (folder / "cgroup.procs").read_text().split():
                os.kill(int(pid), signal.SIGKILL)
        with contextlib.suppress(OSError):
            folder.rmdir()
            return
        time.sleep(0.002)


def main() -> int:
    plan: dict[str, Any] = json.loads(sys.argv[1])
    lab = os.pidfd_open(plan["lab"])
    if os.getppid() != plan["lab"]:
        return 1
    slot_folder = Path(plan["slot_folder"])
    if plan["uid"] is not None:
        gather(slot_folder, plan["binds"])
        if plan["fence"] is not None:
            expose(slot_folder, plan["expose"])
            scratch = slot_folder / "scratch"
            scratch.mkdir()
            size = f"size={plan['scratch_bytes']},uid={plan['uid']},gid={plan['uid']},mode=700"
            _mount("scratch", scratch, "tmpfs", _NOSUID | _NODEV, size)
    plan["guardian"] = os.getpid()
    child = os.fork()
    if not child:
        _start(plan)
    if lab > 3:
        os.closerange(3, lab)
    os.closerange(lab + 1, os.sysconf("SC_OPEN_MAX"))
    _watch(lab, os.pidfd_open(child))
    _, status = os.waitpid(child, 0)
    if select.select([lab], [], [], 0)[0]:  # a living lab still wants to read the counters, and removes them itself
        for group in plan["cgroups"]:
            remove_cgroup(Path(group))
    if plan["temporary"]:
        shutil.rmtree(plan["temporary"], ignore_errors=True)
    return max(0, os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    sys.exit(main())
