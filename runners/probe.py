"""The attack probe: runs inside a sandbox, tries what a hostile candidate would, and says what worked.

Standard library only. Every attempt is harmless where it succeeds (the clock is set to the time it shows,
files it could create are removed). runners/isolation.py starts it and turns the rows into a level.
"""

# os calls and not pathlib: what is probed is the system call.
# ruff: noqa: PTH100, PTH108, PTH110, PTH112, PTH118, PTH120, PTH123, PTH208

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable

import inside_call  # type: ignore[import-not-found,unused-ignore]  # exists in the sandbox only

Verdict = tuple[bool, str]
_USERNS = 0x10000000
_KERNEL_SURFACES = ("keyctl", "add_key", "io_uring_setup", "bpf", "perf_event_open", "userfaultfd")
_LASTING_OBJECTS = ("shmget", "semget", "msgget", "mq_open")
_CAPTURE = ("ptrace", "process_vm_readv", "pidfd_getfd", "kcmp")


def _call(name: str, *arguments: int) -> int:
    """The errno of a raw system call, 0 when it worked."""
    libc = ctypes.CDLL(None, use_errno=True)
    numbers: dict[str, int] = inside_call.args["numbers"]
    padded = [ctypes.c_long(value) for value in (*arguments, 0, 0, 0, 0, 0)][:6]
    return ctypes.get_errno() if libc.syscall(ctypes.c_long(numbers[name]), *padded) < 0 else 0


def _all_refused(names: tuple[str, ...], *arguments: int) -> Verdict:
    answers = {name: _call(name, *arguments) for name in names}
    listed = ", ".join(f"{name} {errno.errorcode.get(code, 'OPEN')}" for name, code in answers.items())
    return all(code in (errno.EPERM, errno.ENOSYS) for code in answers.values()), listed


def _refused(attempt: Callable[[], object]) -> Verdict:
    try:
        attempt()
    except OSError as problem:
        return False, errno.errorcode.get(problem.errno or 0, str(problem))
    return True, "worked"


def _none_works(attempts: dict[str, Callable[[], object]]) -> Verdict:
    """Passed when every attempt is refused."""
    outcomes = {name: _refused(attempt) for name, attempt in attempts.items()}
    listed = ", ".join(f"{name}: {detail}" for name, (_, detail) in outcomes.items())
    return not any(worked for worked, _ in outcomes.values()), listed


def _open_for_writing(path: str) -> Callable[[], None]:
    return lambda: os.close(os.open(path, os.O_WRONLY))


def _create(folder: str) -> Callable[[], None]:
    def attempt() -> None:
        path = os.path.join(folder, f"probe-{os.getpid()}")
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.unlink(path)

    return attempt


def hidden_file() -> Verdict:
    return _none_works({"open": lambda: os.close(os.open(inside_call.args["hidden"], os.O_RDONLY))})


def inherited_descriptors() -> Verdict:
    wanted = {0, 1, 2, *inside_call.fds.values()}
    found = {int(name) for name in os.listdir("/proc/self/fd")}
    extra = [fd for fd in found - wanted if os.path.exists(f"/proc/self/fd/{fd}")]
    return not extra, f"{len(extra)} beyond the named ones"


def trusted_files() -> Verdict:
    harness = os.path.dirname(os.path.abspath(__file__))
    attempts: dict[str, Callable[[], object]] = {
        "interpreter": _open_for_writing(os.path.realpath(sys.executable)),
        "library": _open_for_writing(os.__file__),
        "library folder": _create(os.path.dirname(os.__file__)),
        "zygote": _open_for_writing(os.path.join(harness, "zygote.py")),
        "harness": _create(inside_call.args["inside"]),
    }
    return _none_works(attempts)


def network() -> Verdict:
    def tcp() -> None:
        socket.create_connection(("127.0.0.1", inside_call.args["port"]), timeout=0.5).close()

    return _none_works({"tcp": tcp, "vsock": lambda: socket.socket(40, socket.SOCK_STREAM).close()})


def abstract_socket() -> Verdict:
    def connect() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect("\0" + inside_call.args["abstract"])

    return _none_works({"connect": connect})


def host_processes() -> Verdict:
    others = {int(name) for name in os.listdir("/proc") if name.isdigit()} - {os.getpid(), os.getppid()}
    return not others, f"{len(others)} besides the zygote and itself"


def zygote_memory() -> Verdict:
    place = f"/proc/{os.getppid()}"
    attempts: dict[str, Callable[[], object]] = {
        name: _open_for_writing(f"{place}/{name}") for name in ("mem", "oom_score_adj", "comm")
    }
    attempts["fd"] = lambda: os.listdir(f"{place}/fd")
    attempts["environ"] = lambda: os.close(os.open(f"{place}/environ", os.O_RDONLY))
    attempts["limits"] = lambda: resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)
    return _none_works(attempts)


def zygote_signals() -> Verdict:
    if os.getppid() != 1:
        return False, "the zygote is not an init: a step can kill it"
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSTOP, signal.SIGCHLD):
        os.kill(1, number)
    with open("/proc/1/stat") as status:
        state = status.read().rpartition(")")[2].split()[0]
    return state not in "TtZX", f"state {state} after five signals"


def capture() -> Verdict:
    return _all_refused(_CAPTURE)  # ptrace(0) asks to be traced, which nobody is refused by default


def nested_namespaces() -> Verdict:
    return _all_refused(("unshare",), _USERNS)


def kernel_surfaces() -> Verdict:
    return _all_refused(_KERNEL_SURFACES)


def lasting_objects() -> Verdict:
    return _all_refused(_LASTING_OBJECTS)


def wall_clock() -> Verdict:
    return _none_works({"set": lambda: time.clock_settime(time.CLOCK_REALTIME, time.time())})


def environment() -> Verdict:
    extra = set(os.environ) - set(inside_call.args["environment"]) - {"PWD", "LC_CTYPE"}
    return not extra, ", ".join(sorted(extra)) or "only what was given"


def kernel_settings() -> Verdict:
    paths = ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger")
    return _none_works({path: _open_for_writing(path) for path in paths})


def scheduling() -> Verdict:
    mine = os.sched_getaffinity(0)
    attempts: dict[str, Callable[[], object]] = {
        "affinity": lambda: os.sched_setaffinity(0, mine),
        "priority": lambda: os.setpriority(os.PRIO_PROCESS, 0, 1),
    }
    return _none_works(attempts)


def writable_places() -> Verdict:
    places = {
        "/",
        "/tmp",
        "/var/tmp",
        "/dev",
        "/dev/shm",
        "/run",
        "/etc",
        "/usr",
        "/inside",
        "/zygote",
        "/sys",
    }
    with open("/proc/self/mounts") as mounts:
        places |= {line.split()[1] for line in mounts}
    scratch = os.path.realpath(inside_call.scratch)
    folders = [place for place in places if os.path.isdir(place) and os.path.realpath(place) != scratch]
    passed, _ = _none_works({folder: _create(folder) for folder in folders})
    open_ones = [folder for folder in folders if _refused(_create(folder))[0]]
    return passed, ", ".join(open_ones) or f"{len(folders)} folders refused"


def device_times() -> Verdict:
    """The time stamp of /dev/null would be a message to the next step."""
    nodes = ["/dev/null", "/dev/zero", *inside_call.args["devices"]]
    return _none_works({node: lambda node=node: os.utime(node) for node in nodes})  # type: ignore[misc]


def scratch_cap() -> Verdict:
    place = os.statvfs(inside_call.scratch)
    size = place.f_blocks * place.f_frsize
    return size <= inside_call.args["scratch_bytes"], f"{size} bytes"


def identity() -> Verdict:
    with open("/proc/self/status") as status:
        rows = dict(line.rstrip("\n").split(":\t", 1) for line in status)
    powers, bare, filtered = rows["CapEff"], rows["NoNewPrivs"], rows["Seccomp"]
    detail = f"uid {os.getuid()}, capabilities {powers}, no_new_privs {bare}, seccomp {filtered}"
    return os.getuid() != 0 and not int(powers, 16) and (bare, filtered) == ("1", "2"), detail


def device_kernel() -> Verdict:
    """Nodes that can be opened are no proof, and libraries fall back to the CPU without a word: run a kernel."""
    if not any(node.removeprefix("/dev/nvidia").isdigit() for node in inside_call.args["devices"]):
        return True, "no GPU in this sandbox"
    import cuda  # type: ignore[import-not-found,unused-ignore]  # mounted beside this file

    return cuda.Device().works(), "a kernel ran"


PROBES = (
    hidden_file,
    inherited_descriptors,
    trusted_files,
    network,
    abstract_socket,
    host_processes,
    zygote_memory,
    zygote_signals,
    capture,
    nested_namespaces,
    kernel_surfaces,
    lasting_objects,
    wall_clock,
    environment,
    kernel_settings,
    scheduling,
    writable_places,
    device_times,
    scratch_cap,
    identity,
    device_kernel,
)


def leave_daemons(report: int, count: int) -> None:
    """Processes that leave every group, ignore SIGTERM, hold the report; each writes a byte when it runs."""
    for _ in range(count):
        if os.fork():
            continue
        os.setsid()
        if os.fork():
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(report, b"d")
        while True:
            time.sleep(60)


def main() -> None:
    report = inside_call.fds["report"]
    if "daemons" in inside_call.args:
        leave_daemons(report, inside_call.args["daemons"])
        return
    rows: list[tuple[str, bool, str]] = []
    for attack in PROBES:
        try:
            passed, detail = attack()
        except (OSError, ValueError, KeyError) as problem:  # a probe that cannot look has not shown anything
            passed, detail = False, f"{type(problem).__name__}: {problem}"
        rows.append((attack.__name__, passed, detail))
    with open(report, "wb", closefd=False) as stream:
        stream.write(json.dumps(rows).encode())
