"""Attacks on a full sandbox one by one, with what the kernel answered; and the limits without a control group."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runners import seccomp
from runners.cgroup import CGroup
from runners.process_tree import bytes_below, descendants, start_time
from runners.sandbox import Sandbox, SandboxBroken
from tests.sandbox_play import INSIDE, ROOT, SMALL, need, need_full_sandbox, pack, play, public_python
from tests.test_sandbox_isolation import _copy_of_the_runners

# An ordinary user's lab, without control groups: starts one sandbox, plays each step, prints what came of it.
LIMITED = """
import json, os, sys
from pathlib import Path
from runners.sandbox import Limits, Sandbox
limits = Limits(memory_bytes=512 << 20, processes=48, scratch_bytes=64 << 20, file_bytes=32 << 20)
found = {}
with Sandbox.start(7, inside=Path(sys.argv[1]), limits=limits, mechanism=sys.argv[2]) as box:
    found["group"] = box.group is not None
    for name in sys.argv[3:]:
        read, write = os.pipe()
        null = os.open("/dev/null", os.O_WRONLY)
        child = box.spawn("attack", args={"do": name}, fds={"answer": write}, log=null)
        os.close(write)
        exit = child.wait(30)
        oom = box.oom_killed()
        box.reset()
        text = os.read(read, 4096)
        found[name] = {"signal": exit.signal, "answer": json.loads(text) if text else None, "oom": oom}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    need_full_sandbox()
    with Sandbox.start(8, inside=INSIDE, limits=SMALL, mechanism="bwrap") as started:
        yield started


@pytest.fixture
def host() -> Iterator[dict[str, Any]]:
    """A service on the loopback, one with an abstract name, and a process of the user the sandbox runs as."""
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as abstract:
        tcp.bind(("127.0.0.1", 0))
        abstract.bind(f"\0lab-test-{os.getpid()}")
        for listener in (tcp, abstract):
            listener.listen()
        process = subprocess.Popen(["sleep", "600"], user=1785, group=1785, extra_groups=[])  # the uid of slot 8
        yield {"port": tcp.getsockname()[1], "abstract": f"lab-test-{os.getpid()}", "process": process.pid}
        process.kill()
        process.wait()


def numbers(*names: str) -> dict[str, int]:
    column = seccomp.ARCHITECTURES[os.uname().machine][0]
    return {name: seccomp.DENIED[name][column] for name in names}


def test_evaluator_interpreter_and_library_cannot_be_written(box: Sandbox) -> None:
    paths = ["/inside/attack.py", "/zygote/zygote.py", sys.executable, os.__file__, "/usr/bin/env"]
    outcomes = play(box, "write_to", paths=paths)[1]
    assert set(outcomes.values()) <= {"EROFS", "EACCES"}, outcomes


def test_settings_of_the_kernel_cannot_be_written(box: Sandbox) -> None:
    paths = [f"/proc/sys/kernel/{name}" for name in ("core_pattern", "hostname", "modprobe")] + ["/proc/sysrq-trigger"]
    outcomes = play(box, "write_to", paths=paths)[1]
    assert set(outcomes.values()) <= {"EROFS", "EACCES", "ENOENT"}, outcomes


def test_services_processes_and_clock_of_the_host_are_out_of_reach(box: Sandbox, host: dict[str, Any]) -> None:
    """The process has the very uid of the sandbox: the pid namespace hides it, not the permission."""
    outcomes = play(box, "reach_the_host", **host)[1]
    assert outcomes == {
        "tcp": "EAFNOSUPPORT", "abstract": "ECONNREFUSED", "signal": "ESRCH", "environment": "ENOENT",
        "memory": "ENOENT", "clock": "EPERM",
    }  # fmt: skip


def test_with_loopback_allowed_it_is_a_loopback_of_its_own(host: dict[str, Any]) -> None:
    need_full_sandbox()
    with Sandbox.start(8, inside=INSIDE, limits=SMALL, loopback=True) as other:
        assert play(other, "reach_the_host", **host)[1]["tcp"] in ("ECONNREFUSED", "ENETUNREACH")


def test_no_piece_of_the_validation_text_can_be_read(box: Sandbox, prepared_text: Path) -> None:
    """Everything but the interpreter and the system's own programs is read through for 64-byte pieces of it."""
    text = (prepared_text / "val_screen.bin").read_bytes()
    snippets = [text[at : at + 64].hex() for at in range(0, len(text) - 64, len(text) // 40)]
    skip = ["/proc", "/sys", "/usr", *box.jail.interpreter().values()]
    seen = play(box, "search", pack(model="", train=""), snippets=snippets, skip=skip, hidden=str(prepared_text))[1]
    assert (seen["found"], seen["hidden"]) == ([], False)
    assert seen["files"] > 4, "its own tree, the harness, the zygote"
    planted = pack(model=bytes.fromhex(snippets[3]).decode())
    found = play(box, "search", planted, snippets=snippets, skip=skip, hidden=str(prepared_text))[1]["found"]
    assert found == ["/scratch/repo/model.py"], "the search does find"


def test_no_process_of_the_host_is_seen(box: Sandbox) -> None:
    assert play(box, "remains")[1]["processes"] == [1]


@pytest.mark.parametrize(
    "name",
    ["ptrace", "process_vm_readv", "pidfd_getfd", "keyctl", "add_key", "io_uring_setup", "bpf", "perf_event_open",
     "userfaultfd", "mount", "setns", "kexec_load", "shmget", "mq_open"],
)  # fmt: skip
def test_a_call_that_reaches_others_or_the_kernel_is_refused(box: Sandbox, name: str) -> None:
    assert play(box, "system_calls", numbers=numbers(name))[1] == {name: "EPERM"}


@pytest.mark.parametrize("flags", [0x10000000, 0x00020000], ids=["user", "mount"])
def test_no_namespace_can_be_nested(box: Sandbox, flags: int) -> None:
    assert play(box, "system_calls", numbers=numbers("unshare"), arguments=[flags])[1] == {"unshare": "EPERM"}


def test_a_device_node_works_and_takes_no_mark() -> None:
    """A node of its own with the numbers of /dev/zero, bound as a GPU's nodes are."""
    need_full_sandbox()
    node = Path("/dev/recursive-lab-test")
    node.unlink(missing_ok=True)
    os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    node.chmod(0o666)
    try:
        with Sandbox.start(8, inside=INSIDE, limits=SMALL, devices=(str(node),)) as box:
            seen = play(box, "use_device", node=str(node))[1]
            assert seen["read"] == [0, 0, 0, 0] and seen["times"] in ("EROFS", "EPERM")
            assert box.isolation.level == 3
    finally:
        node.unlink()


def test_no_sandbox_is_started_as_root() -> None:
    need(ROOT, "root")
    with pytest.raises(SandboxBroken, match="starts no sandbox as root"):
        Sandbox.start(-1777, inside=INSIDE, limits=SMALL)  # its uid would be 0


def test_a_sandbox_dies_with_its_guardian() -> None:
    """--die-with-parent: the guardian itself may be killed, for memory for one."""
    need_full_sandbox()
    with Sandbox.start(9, inside=INSIDE, limits=SMALL) as box:
        guardian = box._launched.guardian
        with open(os.devnull, "wb") as null:
            box.spawn("attack", args={"do": "sleep"}, log=null.fileno(), fds={})
        pids = descendants(guardian.pid)[1:]
        assert len(pids) >= 3, "bwrap, zygote, step"
        guardian.kill()
        guardian.wait()
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline and any(start_time(pid) for pid in pids):
            time.sleep(0.01)
        assert [pid for pid in pids if start_time(pid)] == []


def limited(mechanism: str, *steps: str) -> dict[str, Any]:
    """Steps in the sandbox of an ordinary user's lab."""
    need(ROOT and bool(public_python()), "root, and a Python that every user may start")
    with tempfile.TemporaryDirectory() as place:
        folder = _copy_of_the_runners(Path(place))
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        done = subprocess.run(
            [public_python(), "-B", "-c", LIMITED, str(folder / "inside"), mechanism, *steps],
            env={"PATH": os.environ["PATH"], "HOME": "/", "PYTHONPATH": str(folder)}, capture_output=True, text=True,
            cwd=folder, user=65534, group=65534, extra_groups=[], timeout=120,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found.pop("group") is False, "this user may make no control group"
    return found


def test_without_a_control_group_limits_and_a_watchdog_hold_memory_and_processes() -> None:
    found = limited("bwrap", "reserve", "hog", "bomb", "fill", "one_large_file")
    assert found["reserve"]["answer"] == "ENOMEM", "RLIMIT_AS"
    assert (found["hog"]["signal"], found["hog"]["oom"]) == (signal.SIGKILL, True)
    assert 10 < found["bomb"]["answer"] < SMALL.processes
    assert found["fill"]["answer"]["written"] <= SMALL.scratch_bytes
    assert found["one_large_file"]["answer"] == 27, "EFBIG"


def test_without_namespaces_a_watchdog_holds_the_disk() -> None:
    found = limited("landlock", "fill_and_stay", "one_large_file")
    assert found["fill_and_stay"]["signal"] == signal.SIGKILL and not found["fill_and_stay"]["oom"]
    assert found["one_large_file"] == {"signal": None, "answer": 27, "oom": False}, "the next step is not blamed"


def test_what_lies_in_a_closed_folder_counts_as_too_much(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "file").write_bytes(bytes(100_000))
    (tmp_path / "link").symlink_to("/usr")
    assert 100_000 <= bytes_below(str(tmp_path)) < 200_000
    assert bytes_below(str(tmp_path / "nothing")) == 0
    code = f"from runners.process_tree import bytes_below; print(bytes_below({str(tmp_path)!r}))"
    need(ROOT and bool(public_python()), "root, to become somebody who may be kept out")
    with tempfile.TemporaryDirectory() as place:
        folder = _copy_of_the_runners(Path(place))
        closed = folder / "scratch"
        (closed / "hidden").mkdir(parents=True)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        (closed / "hidden").chmod(0)
        done = subprocess.run(
            [public_python(), "-B", "-c", code.replace(str(tmp_path), str(closed))], cwd=folder, text=True,
            capture_output=True, user=65534, group=65534, extra_groups=[], check=True,
        )  # fmt: skip
    assert done.stdout.strip() == "inf"


def test_a_version_2_group_is_spoken_to_in_the_kernels_words(tmp_path: Path) -> None:
    """On files laid out as the kernel does: where version 1 holds the memory controller, version 2 has none to ask."""
    kernel = {
        "pids.max": "max\n", "memory.max": "max\n", "memory.swap.max": "max\n",
        "memory.events": "low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\noom_group_kill 0\n",
        "cpu.stat": "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n", "memory.peak": "4096\n",
    }  # fmt: skip
    for name, text in kernel.items():
        (tmp_path / name).write_text(text)
    group = CGroup(2, tmp_path, tmp_path, tmp_path)
    group._cap(512 << 20, 48)
    assert group.caps() == (512 << 20, 48)
    assert (tmp_path / "memory.swap.max").read_text() == "0"
    assert group.cpu_seconds() == 1.5
    assert not group.oom_killed(), "an earlier step's"
    (tmp_path / "memory.events").write_text(kernel["memory.events"].replace("oom_kill 1", "oom_kill 2"))
    assert group.oom_killed()
    group.start_over()
    assert not group.oom_killed()
    assert group.folders == [tmp_path]
