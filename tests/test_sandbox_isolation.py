"""What a sandbox withstands: the measured level, the attacks one by one, the fallbacks, and the death of the lab."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from runners import landlock, seccomp
from runners.cgroup import PREFIX, hierarchies
from runners.isolation import FENCE_ROWS, FULL_ROWS, ProbeRow, level_of
from runners.jail import PLAIN_DEVICES, find_bwrap
from runners.process_tree import descendants, start_time
from runners.sandbox import Exit, Limits, Sandbox
from tests.sandbox_play import INSIDE, ROOT, SMALL, need, need_full_sandbox, play, public_python

REPOSITORY = Path(__file__).resolve().parent.parent
# What a lab of its own does in a subprocess: start, report, and stay until it is killed.
LAB = """
import sys, time
from pathlib import Path
from runners.process_tree import descendants
from runners.sandbox import Limits, Sandbox
box = Sandbox.start({slot}, inside=Path(sys.argv[1]), limits=Limits(memory_bytes=512 << 20, processes=48))
print(box.mechanism, box.isolation.level, *[row.name for row in box.isolation.failed], flush=True)
log = open("/dev/null", "wb")
box.spawn("attack", args={{"do": "sleep"}}, fds={{}}, log=log.fileno())
print(*descendants(box._launched.guardian.pid), flush=True)
print(*(box.group.folders if box.group else []), flush=True)
if {stay}:
    time.sleep(600)
box.close()
"""


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    need_full_sandbox()
    with Sandbox.start(3, inside=INSIDE, limits=SMALL, mechanism="bwrap") as started:
        yield started


def _copy_of_the_runners(folder: Path) -> Path:
    shutil.copytree(REPOSITORY / "runners", folder / "runners", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(INSIDE, folder / "inside", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def _start_lab(
    folder: Path, python: str, slot: int, *, stay: bool, user: int | None = None, before: Sequence[str] = ()
) -> subprocess.Popen[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/root" if user is None else "/",
        "PYTHONPATH": str(folder),
    }
    return subprocess.Popen(
        [*before, python, "-B", "-c", LAB.format(slot=slot, stay=stay), str(folder / "inside")],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if before else None,
        text=True,
        cwd=folder,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )


def test_root_on_a_full_host_measures_level_3_within_a_second(box: Sandbox) -> None:
    begun = time.monotonic()
    measured = box.isolation
    assert time.monotonic() - begun < 1
    assert (measured.level, measured.name, measured.failed) == (3, "full sandbox", ())
    assert len(measured.rows) >= 24
    assert box.isolation is measured, "once per sandbox, not per trial"


def test_only_the_scratch_folder_is_writable(box: Sandbox) -> None:
    seen = play(box, "look")[1]
    assert set(seen["writable"]) == {"/scratch", "/proc"}, "and /proc holds only the step's own settings"
    assert seen["uid"] == 1780


def test_a_hidden_file_and_an_inherited_descriptor_on_it_are_out_of_reach(tmp_path: Path) -> None:
    need_full_sandbox()
    hidden = tmp_path / "validation.txt"
    hidden.write_text("SECRET-VALIDATION")
    leaked = os.open(hidden, os.O_RDONLY)
    os.set_inheritable(leaked, True)
    try:
        with Sandbox.start(3, inside=INSIDE, limits=SMALL) as box:
            seen = play(box, "look")[1]
            assert seen["fds"] == sorted({0, 1, 2, *seen["named"].values()})
            assert play(box, "read_host", path=str(hidden))[1] == "FileNotFoundError"
    finally:
        os.close(leaked)


def test_keys_in_the_environment_of_the_lab_stay_there(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", secrets.token_hex())
    with Sandbox.start(4, inside=INSIDE, limits=SMALL, environment={"TRITON_CACHE_DIR": "/scratch/t"}) as other:
        inside = play(other, "look")[1]["environment"]
    assert "OPENAI_API_KEY" not in inside
    assert inside["TRITON_CACHE_DIR"] == "/scratch/t"


def test_the_zygote_is_closed_to_its_children_and_survives_every_signal(box: Sandbox) -> None:
    exit, outcome, log = play(box, "attack_zygote")
    assert exit.ok, log
    assert outcome == {"memory": "closed", "environment": "closed", "maps": "closed"}
    assert play(box, "look")[1]["zygote_fds"] == "closed"


def test_only_unix_sockets_can_be_made_unless_loopback_is_asked_for(box: Sandbox) -> None:
    closed = play(box, "sockets")[1]
    assert [name for name, state in closed.items() if state == "open"] == ["AF_UNIX"]
    with Sandbox.start(4, inside=INSIDE, limits=SMALL, loopback=True) as other:
        opened = play(other, "sockets")[1]
        network = next(row for row in other.isolation.rows if row.name == "network")
    assert opened == dict.fromkeys(opened, "open") | {"AF_VSOCK": "refused"}
    assert network.passed, "its own network has no listener of the host"


def test_another_abi_kills_the_process(box: Sandbox) -> None:
    need(os.uname().machine == "x86_64", "x86-64, which has a second ABI")
    assert play(box, "foreign_abi")[0] == Exit(None, signal.SIGSYS)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_fits_the_kernel_on_both_architectures(machine: str) -> None:
    rows = len(seccomp.program(machine)) // 8
    assert 150 < rows < 4096, "the kernel takes 4096 at most"


def test_nothing_is_alive_after_kill_9_of_the_lab() -> None:
    need_full_sandbox()
    with tempfile.TemporaryDirectory() as place:
        lab = _start_lab(_copy_of_the_runners(Path(place)), sys.executable, 5, stay=True)
        assert lab.stdout is not None
        assert lab.stdout.readline().split() == ["bwrap", "3"]
        pids = [int(pid) for pid in lab.stdout.readline().split()]
        folders = [Path(folder) for folder in lab.stdout.readline().split()]
        assert len(pids) >= 4 and len(folders) >= 1, "guardian, bwrap, zygote, step"
        lab.kill()
        lab.wait()
        lab.stdout.close()
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline and any(start_time(pid) for pid in pids):
        time.sleep(0.01)
    assert [pid for pid in pids if start_time(pid)] == []
    assert [folder for folder in folders if folder.exists()] == []


def test_it_works_from_a_clone_under_the_closed_home_of_root() -> None:
    need_full_sandbox()
    assert Path("/root").stat().st_mode & 0o077 == 0, "this test needs /root with mode 700"
    with tempfile.TemporaryDirectory(dir="/root") as place:
        lab = _start_lab(_copy_of_the_runners(Path(place)), sys.executable, 5, stay=False)
        output, _ = lab.communicate(timeout=60)
    assert lab.returncode == 0
    assert output.splitlines()[0] == "bwrap 3"


def test_an_ordinary_user_gets_level_2_and_is_told_why() -> None:
    need(ROOT and bool(public_python()), "root, and a Python that every user may start")
    with tempfile.TemporaryDirectory() as place:
        folder = _copy_of_the_runners(Path(place))
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        lab = _start_lab(folder, public_python(), 5, stay=False, user=65534)
        output, _ = lab.communicate(timeout=60)
    assert lab.returncode == 0
    assert set(output.splitlines()[0].split()) == {"bwrap", "2", *FULL_ROWS - {"device_kernel"}}, "it has no device"


def test_without_bubblewrap_landlock_holds_the_files_and_one_line_says_so() -> None:
    need(ROOT and landlock.abi() >= landlock.NEEDED_ABI, "root and Landlock (Linux 6.7)")
    program = find_bwrap()
    hide = ["unshare", "-m", "sh", "-c", f'mount --bind /dev/null {program}; exec "$@"', "sh"] if program else []
    with tempfile.TemporaryDirectory() as place:
        folder = _copy_of_the_runners(Path(place))
        lab = _start_lab(folder, sys.executable, 6, stay=False, before=hide)
        output, complaints = lab.communicate(timeout=60)
    first = output.splitlines()[0].split()
    assert first[:2] == ["landlock", "1"]
    assert {"host_processes", "zygote_signals"} <= set(first[2:])
    assert len(complaints.splitlines()) == 1
    assert "apt-get install bubblewrap" in complaints


def test_without_any_fence_the_level_is_0() -> None:
    need(ROOT, "root")
    with Sandbox.start(6, inside=INSIDE, limits=SMALL, mechanism="none") as box:
        assert box.isolation.level == 0
        assert "writable_places" in {row.name for row in box.isolation.failed}


def test_a_row_that_was_not_measured_counts_as_failed() -> None:
    rows = tuple(ProbeRow(name, True, "") for name in sorted(FENCE_ROWS | FULL_ROWS | {"host_processes"}))
    assert level_of(rows) == 3
    assert [level_of(tuple(row for row in rows if row.name != name)) for name in FULL_ROWS] == [2] * len(FULL_ROWS)
    assert level_of(tuple(row for row in rows if row.name != "wall_clock")) == 0
    assert level_of((*rows, ProbeRow("zygote_signals", False, ""))) == 1


def test_groups_of_a_dead_lab_are_swept_at_the_next_start() -> None:
    need_full_sandbox()
    with Sandbox.start(6, inside=INSIDE, limits=SMALL) as box:
        assert box.group is not None
        parent = box.group.memory.parent
    stale, foreign = parent / f"{PREFIX}-1-999-0-0", parent / f"{PREFIX}-something-else"
    stale.mkdir()
    foreign.mkdir()
    try:
        Sandbox.start(6, inside=INSIDE, limits=SMALL).close()
        assert not stale.exists()
        assert foreign.exists(), "what does not look like ours is left alone"
    finally:
        foreign.rmdir()


def test_control_groups_are_found_in_either_version(tmp_path: Path) -> None:
    (tmp_path / "two/worker").mkdir(parents=True)
    (tmp_path / "one/docker").mkdir(parents=True)
    mounts = (
        f"31 23 0:28 / {tmp_path}/two rw - cgroup2 cgroup2 rw\n"
        f"32 23 0:29 /outer {tmp_path}/one rw - cgroup cgroup rw,cpu,cpuacct\n"
        "33 23 0:30 / /proc rw - proc proc rw\n"
    )
    found = hierarchies(mounts, "1:cpu,cpuacct:/outer/docker\n0::/worker\n")
    assert [(place.version, place.own.relative_to(tmp_path)) for place in found] == [
        (2, Path("two/worker")),
        (1, Path("one/docker")),
    ]


def test_device_nodes_work_but_keep_no_message(box: Sandbox) -> None:
    rows = {row.name: row for row in box.isolation.rows}
    assert rows["device_times"].passed
    assert play(box, "read_host", path="/dev/null")[1] == ""
    assert "/dev/null" in PLAIN_DEVICES


def test_a_slot_has_a_user_of_its_own(box: Sandbox) -> None:
    with Sandbox.start(4, inside=INSIDE, limits=Limits(memory_bytes=512 << 20)) as other:
        uids = {Path(f"/proc/{pid}").stat().st_uid for pid in descendants(other._launched.guardian.pid)[1:2]}
        assert play(other, "look")[1]["uid"] == 1781
    assert uids == {1781}
