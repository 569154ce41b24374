"""What the tests let a step do inside a sandbox: `args["do"]` names one function; its answer goes to fd "answer"."""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import inside_call


def look() -> dict[str, object]:
    with open("/proc/self/mounts") as mounts:
        rows = [line.split() for line in mounts]
    return {
        "started": time.monotonic(),
        "args": inside_call.args,
        "step": inside_call.step,
        "where": os.getcwd(),
        "files": sorted(os.listdir(".")),
        "scratch": sorted(os.listdir(inside_call.scratch)),
        "path": sys.path[:2],
        "modules": [name for name in ("torch", "numpy", "inside_call") if name in sys.modules],
        "fds": sorted(int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")),
        "named": inside_call.fds,
        "stdin": os.readlink("/proc/self/fd/0"),
        "environment": dict(os.environ),
        "writable": [row[1] for row in rows if "rw" in row[3].split(",")],
        "session": os.getsid(0) == os.getpid(),
        "cpus": sorted(os.sched_getaffinity(0)),
        "uid": os.getuid(),
        "temporary": tempfile.gettempdir(),
        "zygote_fds": _zygote_descriptors(),
    }


def _zygote_descriptors() -> str:
    try:
        return str(os.listdir("/proc/1/fd"))
    except PermissionError:
        return "closed"


def run_candidate() -> int:
    import candidate

    return candidate.ANSWER


def fail() -> None:
    raise ValueError("a candidate's own mistake")


def leave() -> None:
    sys.exit(7)


def sleep() -> None:
    time.sleep(600)


def litter() -> list[str]:
    """Everything a step could leave for the next: files, a nest too deep for recursion, attributes, closed folders."""
    os.chdir(inside_call.scratch)
    os.makedirs("closed/below")
    with open("closed/below/file", "w") as file:
        file.write("a message")
    os.symlink("/", "link")
    os.mkfifo("pipe")
    for name in ("closed/below", "closed"):
        os.chmod(name, 0)
    for _ in range(1500):  # 1500 x 11 characters: beyond PATH_MAX
        os.mkdir("a" * 10)
        os.chdir("a" * 10)
    os.chdir(inside_call.scratch)
    os.utime(inside_call.scratch, (1, 12345))
    os.chmod(inside_call.scratch, 0o500)
    return sorted(os.listdir(inside_call.scratch))


def remains() -> dict[str, object]:
    return {
        "files": sorted(os.listdir(inside_call.scratch)),
        "attributes": os.listxattr(inside_call.scratch),
        "writable": os.access(inside_call.scratch, os.W_OK),
        "processes": sorted(int(name) for name in os.listdir("/proc") if name.isdigit())[:-1],
    }


def daemons() -> int:
    for _ in range(3):
        if os.fork():
            continue
        os.setsid()
        if os.fork():
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(inside_call.fds["daemons"], b"d")
        while True:
            time.sleep(60)
    return os.getpid()


def bomb() -> int:
    """Forks until refused, then stays; all of the forks stay too."""
    children = 0
    while children < 2000:
        try:
            if not os.fork():
                signal.pause()
        except OSError:
            return children
        children += 1
    return children


def fill() -> dict[str, int]:
    written, code = 0, 0
    try:
        for number in range(100):
            with open(os.path.join(inside_call.scratch, f"block-{number}"), "wb", buffering=0) as file:
                written += file.write(bytes(8 << 20))
    except OSError as problem:
        code = problem.errno or 0
    return {"written": written, "errno": code}


def one_large_file() -> int:
    try:
        with open("large", "wb", buffering=0) as file:
            for _ in range(64):
                file.write(bytes(1 << 20))
    except OSError as problem:
        return problem.errno or 0
    return 0


def hog() -> int:
    held = [bytearray(os.urandom(1) * (16 << 20)) for _ in range(200)]
    return len(held)


def burn() -> float:
    """CPU time in a grandchild that has ended by the time of the answer."""
    code = "import time\nwhile time.process_time() < 0.4: pass"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def shout() -> int:
    block = b"x" * (1 << 20)
    for _ in range(1024):
        os.write(1, block)
    print("the last line", flush=True)
    return 1 << 30


def attack_zygote() -> dict[str, str]:
    outcome = {}
    for number in range(1, 65):
        os.kill(1, number) if number not in (32, 33) else None
    for name, path in {
        "memory": "/proc/1/mem",
        "environment": "/proc/1/environ",
        "maps": "/proc/1/maps",
    }.items():
        try:
            open(path).close()
            outcome[name] = "open"
        except PermissionError:
            outcome[name] = "closed"
    return outcome


def sockets() -> dict[str, str]:
    outcome = {}
    for name in ("AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK", "AF_VSOCK"):
        try:
            socket.socket(getattr(socket, name), socket.SOCK_DGRAM).close()
            outcome[name] = "open"
        except OSError:
            outcome[name] = "refused"
    return outcome


def foreign_abi() -> None:
    """The x32 getpid: a number the filter does not know from the table."""
    ctypes.CDLL(None).syscall(ctypes.c_long(0x40000000 + 39))


def read_host() -> str:
    try:
        with open(inside_call.args["path"]) as file:
            return file.read()
    except OSError as problem:
        return type(problem).__name__


def write_to() -> dict[str, str]:
    """Open each of `paths` for writing."""
    return {
        path: _outcome(lambda path=path: os.close(os.open(path, os.O_WRONLY))) for path in inside_call.args["paths"]
    }


def system_calls() -> dict[str, str]:
    """Call each of `numbers` with `arguments`."""
    libc = ctypes.CDLL(None, use_errno=True)
    outcome = {}
    for name, number in inside_call.args["numbers"].items():
        arguments = [ctypes.c_long(value) for value in inside_call.args.get("arguments", [])]
        failed = libc.syscall(ctypes.c_long(number), *arguments) < 0
        outcome[name] = errno.errorcode[ctypes.get_errno()] if failed else "open"
    return outcome


def reach_the_host() -> dict[str, str]:
    """Its services on the loopback and in the abstract name space, one of its processes, its clock."""

    def abstract() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect("\0" + inside_call.args["abstract"])

    return {
        "tcp": _outcome(lambda: socket.create_connection(("127.0.0.1", inside_call.args["port"]), timeout=1).close()),
        "abstract": _outcome(abstract),
        "signal": _outcome(lambda: os.kill(inside_call.args["process"], 0)),
        "environment": _outcome(lambda: open(f"/proc/{inside_call.args['process']}/environ").close()),
        "memory": _outcome(lambda: open(f"/proc/{inside_call.args['process']}/mem").close()),
        "clock": _outcome(lambda: time.clock_settime(time.CLOCK_REALTIME, time.time())),
    }


def _outcome(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as problem:
        return errno.errorcode.get(problem.errno or 0, type(problem).__name__)
    return "open"


def reserve() -> str:
    """Six gigabytes of addresses, none of them touched."""
    return _outcome(lambda: mmap.mmap(-1, 6 << 30))


def fill_and_stay() -> None:
    """More small files than the scratch folder may hold; then wait to be found out."""
    fill()
    time.sleep(600)


def search() -> dict[str, object]:
    """Read all there is but `skip`, for `snippets` (as hex) and for the folder `hidden`."""
    wanted = [bytes.fromhex(snippet) for snippet in inside_call.args["snippets"]]
    files, found = 0, []
    for folder, names, leaves in os.walk("/"):
        names[:] = [name for name in names if os.path.join(folder, name) not in inside_call.args["skip"]]
        for leaf in leaves:
            path = os.path.join(folder, leaf)
            try:
                if not os.path.isfile(path):
                    continue
                with open(path, "rb") as file:
                    content = file.read()
            except OSError:
                continue
            files += 1
            found += [path for snippet in wanted if snippet in content]
    return {"files": files, "found": found, "hidden": os.path.exists(inside_call.args["hidden"])}


def use_device() -> dict[str, object]:
    """Read from a node that was bound as a device, and try to leave a mark on it."""
    with open(inside_call.args["node"], "rb", buffering=0) as node:
        content = list(node.read(4))
    return {"read": content, "times": _outcome(lambda: os.utime(inside_call.args["node"]))}


def fill_cache() -> list[str]:
    """What lies in the cache; then one file more, in the folder that a compiler is pointed to."""
    found = sorted(name for _, _, names in os.walk(inside_call.cache) for name in names)
    folder = os.environ["TORCHINDUCTOR_CACHE_DIR"]
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, f"kernel-{len(found)}"), "w") as file:
        file.write("compiled")
    return found


def main() -> None:
    answer = globals()[inside_call.args["do"]]()
    os.write(inside_call.fds["answer"], json.dumps(answer).encode() + b"\n")
