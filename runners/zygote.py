"""Process 1 of a sandbox: trusted, imports what steps need once, and forks a pristine child for each step.

Runs inside the sandbox as a script, with the standard library alone. It never runs code of a candidate, never
reads a byte a candidate wrote, never waits for a child, and has no signal handler: the kernel then drops
every signal its children send it. It ends when the control socket does. Between two steps it kills whatever
lives, empties the scratch folder and checks that it is empty.
"""

# os calls and not pathlib: a hostile tree is taken apart name by name.
# ruff: noqa: PTH100, PTH101, PTH103, PTH104, PTH106, PTH108, PTH109, PTH118, PTH120, PTH123, PTH208

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import importlib.util
import json
import os
import resource
import select
import signal
import socket
import stat
import struct
import sys
import tarfile
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

MOST_FDS = 32
REAP_SECONDS = 0.1  # how long a zombie of an orphan may hold its place in the pid limit
KILL_SECONDS = 15.0  # a process that holds most of a GPU, or pinned memory, takes seconds to go
WIPE_SECONDS = 10.0
_PDEATHSIG, _DUMPABLE, _SUBREAPER = 1, 4, 36
_LIMITS = {
    "processes": resource.RLIMIT_NPROC,
    "open_files": resource.RLIMIT_NOFILE,
    "file_bytes": resource.RLIMIT_FSIZE,
    "address_space": resource.RLIMIT_AS,
}


# While modules are imported: whoever asks whether there is a GPU is told no without looking. A driver that the zygote
# has opened (CUDA, or NVML, which torch asks instead) is of no use to a fork, whose descriptors are closed.
_NO_GPU = {"CUDA_VISIBLE_DEVICES": "", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}


class Broken(Exception):
    """This sandbox cannot promise a clean next step; it must be replaced."""


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def send(control: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    body = json.dumps(message).encode()
    data = struct.pack("!I", len(body)) + body
    sent = socket.send_fds(control, [data], list(fds)) if fds else 0
    control.sendall(data[sent:])


def receive(control: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """One message and its descriptors. Raises EOFError when the lab is gone."""
    header, fds, _, _ = socket.recv_fds(control, 4, MOST_FDS, socket.MSG_CMSG_CLOEXEC)
    data, wanted = bytearray(header), 4
    while len(data) < wanted or wanted == 4:
        if not data:
            raise EOFError
        if len(data) >= 4:
            wanted = 4 + struct.unpack("!I", data[:4])[0]
        block = control.recv(wanted - len(data))
        if not block:
            raise EOFError
        data += block
    message: dict[str, Any] = json.loads(data[4:])
    return message, fds


# --- the child


def _close_all_but(keep: set[int]) -> None:
    start = 0
    for fd in sorted(keep):
        if start < fd:  # an empty range from 0 would close everything: CPython hands the kernel an end of -1
            os.closerange(start, fd)
        start = fd + 1
    os.closerange(start, os.sysconf("SC_OPEN_MAX"))


def _bound(limits: dict[str, int]) -> None:
    """Lower the limits of this child for good.

    Here and not before bwrap: RLIMIT_NPROC then counts in this user namespace alone, so that other processes
    of the same user do not eat it.
    """
    for name, value in limits.items():
        _, hard = resource.getrlimit(_LIMITS[name])
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(_LIMITS[name], (value, value))


def _enter(setup: dict[str, Any], request: dict[str, Any], fds: list[int]) -> dict[str, int]:
    """Turn the fresh fork into a step: own session, descriptors, limits, files. Returns the named fds."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    tree, cache, log, *named = fds
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    _close_all_but({0, 1, 2, tree, cache, *named})
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # as in any Python: an exception, not a silent death
        signal.signal(number, signal.SIG_IGN)
    sys.stdout = open(1, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    _prctl(_DUMPABLE, 1)
    if os.getppid() != 1:
        _prctl(_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as adjustment:
        adjustment.write("1000")  # out of memory, the step dies and the zygote lives
    _bound(setup["limits"])
    _unpack(cache, os.path.join(setup["scratch"], "cache"))
    repo = os.path.join(setup["scratch"], "repo")
    _unpack(tree, repo)
    os.chdir(repo)
    return dict(zip(request["names"], named, strict=True))


def _unpack(fd: int, folder: str) -> None:
    os.makedirs(folder, exist_ok=True)
    with open(fd, "rb") as packed:
        if os.fstat(packed.fileno()).st_size:
            with tarfile.open(fileobj=packed) as archive:
                archive.extractall(folder, filter="data")


def _call(setup: dict[str, Any], request: dict[str, Any], named: dict[str, int]) -> None:
    import inside_call  # type: ignore[import-not-found,unused-ignore]  # mounted beside this file

    inside_call.step, inside_call.args, inside_call.fds = request["module"], request["args"], named
    inside_call.repo, inside_call.scratch = os.getcwd(), setup["scratch"]
    inside_call.cache = os.path.join(setup["scratch"], "cache")
    folder = request["folder"]
    sys.path[:0] = [inside_call.repo, folder]
    path = os.path.join(folder, request["module"] + ".py")
    sys.argv = [path]
    # Not the bare name: a candidate may have a train.py of its own, which `import train` must find.
    spec = importlib.util.spec_from_file_location("inside_" + request["module"], path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    module.main()


def run_child(setup: dict[str, Any], request: dict[str, Any], fds: list[int]) -> NoReturn:
    code = 1
    try:
        _call(setup, request, _enter(setup, request, fds))
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        if isinstance(leaving.code, str):
            print(leaving.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001  the boundary of a step: anything becomes a traceback and code 1
        with contextlib.suppress(Exception):
            traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code & 0xFF)


# --- the end of a step


def _reap() -> Iterator[tuple[int, int]]:
    """(pid, wait status) of each dead child; raises ChildProcessError when there is no child at all."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        yield pid, status


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as listing:
        return [int(pid) for pid in listing.read().split()]


def _kill_once() -> None:
    if os.getpid() == 1:  # atomic: the kernel signals every process of the namespace but us under one lock
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        return
    for sign in (
        signal.SIGSTOP,
        signal.SIGKILL,
    ):  # no namespace: orphans come to us, the subreaper, level by level
        for pid in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)


def kill_all() -> list[tuple[int, int]]:
    """Kill and reap every descendant. Raises Broken when one will not die."""
    deadline, pause = time.monotonic() + KILL_SECONDS, 0.0005
    dead: list[tuple[int, int]] = []
    while time.monotonic() < deadline:
        _kill_once()
        try:
            for corpse in _reap():
                dead.append(corpse)
        except ChildProcessError:
            return dead
        time.sleep(pause)
        pause = min(0.01, pause * 1.5)
    raise Broken("a process does not die")


def _remove(path: str, root: str, serial: Iterator[int]) -> None:
    mode = os.lstat(path).st_mode
    if not stat.S_ISDIR(mode):
        os.unlink(path)
        return
    os.chmod(path, 0o700)
    with os.scandir(path) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                os.chmod(entry.path, 0o700)
                os.rename(entry.path, os.path.join(root, f".wipe-{next(serial)}"))
            else:
                os.unlink(entry.path)
    os.rmdir(path)


def wipe(root: str) -> None:
    """Empty `root`, its own mode, times and attributes too, and verify. Raises Broken.

    Flat on purpose: a folder below a folder is first moved up, so that a nest deeper than the recursion limit
    or PATH_MAX is removed like any other.
    """
    deadline, serial = time.monotonic() + WIPE_SECONDS, iter(range(1 << 62))
    try:
        os.chmod(root, 0o700)
        while names := os.listdir(root):
            for name in names:
                _remove(os.path.join(root, name), root, serial)
                if time.monotonic() > deadline:
                    raise Broken("the scratch folder takes too long to empty")
        for attribute in os.listxattr(root):
            os.removexattr(root, attribute)
        os.utime(root, (0, 0))
        if os.listdir(root) or os.listxattr(root):
            raise Broken("the scratch folder is not empty")
    except OSError as problem:
        raise Broken(f"the scratch folder cannot be emptied: {problem}") from problem


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


# --- the loop


class Zygote:
    def __init__(self, control: socket.socket, setup: dict[str, Any]) -> None:
        self.control, self.setup = control, setup
        self.children: dict[int, tuple[int, int]] = {}  # pid: (id of the parent's request, pidfd)
        self.poll = select.poll()
        self.poll.register(control, select.POLLIN)

    def spawn(self, request: dict[str, Any], fds: list[int]) -> None:
        try:
            pid = os.fork()
        except OSError as problem:
            _close(fds)
            send(self.control, {"event": "spawned", "id": request["id"], "refused": str(problem)})
            return
        if not pid:
            run_child(self.setup, request, fds)
        _close(fds)
        pidfd = os.pidfd_open(pid)
        self.children[pid] = (request["id"], pidfd)
        self.poll.register(pidfd, select.POLLIN)
        send(self.control, {"event": "spawned", "id": request["id"], "pid": pid})

    def kill(self, request_id: int) -> None:
        for pid, (owner, pidfd) in self.children.items():
            if owner == request_id:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    def report(self, pid: int, status: int) -> None:
        if pid not in self.children:
            return
        owner, pidfd = self.children.pop(pid)
        self.poll.unregister(pidfd)
        os.close(pidfd)
        send(self.control, {"event": "exit", "id": owner, "status": os.waitstatus_to_exitcode(status)})

    def reset(self, request_id: int) -> None:
        for pid, status in kill_all():
            self.report(pid, status)
        wipe(self.setup["scratch"])
        for node in self.setup["touch"]:
            # Where /dev could not be mounted read-only, the time of a node is the one thing a step can leave.
            with contextlib.suppress(OSError):
                os.utime(node)
        send(self.control, {"event": "clean", "id": request_id})

    def serve(self) -> None:
        while True:
            ready = self.poll.poll(REAP_SECONDS * 1000 if self.children else None)
            with contextlib.suppress(ChildProcessError):
                for pid, status in _reap():
                    self.report(pid, status)
            if all(fd != self.control.fileno() for fd, _ in ready):
                continue
            request, fds = receive(self.control)
            if request["op"] == "spawn":
                self.spawn(request, fds)
            elif request["op"] == "kill":
                self.kill(request["id"])
            elif request["op"] == "reset":
                self.reset(request["id"])


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    _close_all_but({0, 1, 2, control.fileno()})
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    _prctl(_DUMPABLE, 0)  # shuts /proc/1/mem, /proc/1/fd, /proc/1/environ to the children, who have our uid
    _prctl(_SUBREAPER, 1)
    send(control, {"event": "alive", "pid": os.getpid()})
    setup, _ = receive(control)
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))  # inside_call lies beside us
    kept = dict(os.environ)
    os.environ.update(_NO_GPU)
    for name in setup["preload"]:
        importlib.import_module(name)
    tops = {name.partition(".")[0] for name in setup["preload"]}
    exec(setup["statement"], {name: sys.modules[name] for name in tops})
    for name in _NO_GPU:
        os.environ.pop(name)
    os.environ.update(kept)
    wipe(setup["scratch"])
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page the fork shares
    scratch = os.open(setup["scratch"], os.O_RDONLY | os.O_DIRECTORY)  # through which the lab reads the compile cache
    send(control, {"event": "ready", "threads": len(os.listdir("/proc/self/task"))}, [scratch])
    os.close(scratch)
    Zygote(control, setup).serve()


if __name__ == "__main__":
    try:
        main()
    except EOFError:
        sys.exit(0)
    except Broken as why:
        sys.exit(f"zygote: {why}")
