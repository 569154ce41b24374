"""The supervisor: one a data folder, children come back, and nobody outlives it. Real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runners.supervisor import AlreadyRunning, Supervisor, only_one

ROOT = Path(__file__).resolve().parent.parent
SLEEP = ("shell", "--verbosity", "0", "-c", "import time; time.sleep(600)")
SUPERVISE = """
import sys, time
from pathlib import Path
from runners.supervisor import Supervisor, only_one
folder = Path(sys.argv[1])
with only_one(folder), Supervisor(folder / "logs") as supervisor:
    for name in ("first", "second"):
        supervisor.add(name, *sys.argv[2:])
    print(*[child.process.pid for child in supervisor.children], flush=True)
    while True:
        supervisor.tick()
        time.sleep(0.1)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it took longer than 20 s"
        time.sleep(0.02)


def supervise(folder: Path) -> tuple[subprocess.Popen[str], list[int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISE, str(folder), *SLEEP], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    return process, [int(pid) for pid in process.stdout.readline().split()]


def test_a_second_supervisor_on_a_data_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    with only_one(tmp_path):
        with pytest.raises(AlreadyRunning) as refusal, only_one(tmp_path):
            raise AssertionError("two supervisors")
        assert f"in use by process {os.getpid()}" in str(refusal.value) and "\n" not in str(refusal.value)
    with only_one(tmp_path), only_one(tmp_path / "another"):
        pass


def test_a_killed_supervisor_leaves_no_child_and_no_lock(tmp_path: Path) -> None:
    process, children = supervise(tmp_path)
    assert len(children) == 2 and all(map(alive, children))
    with pytest.raises(AlreadyRunning, match=f"process {process.pid}"), only_one(tmp_path):
        pass
    process.kill()
    process.communicate()
    wait_for(lambda: not any(map(alive, children)))
    with only_one(tmp_path):
        pass


def test_a_killed_child_is_started_again(tmp_path: Path) -> None:
    with Supervisor(tmp_path / "logs") as supervisor:
        supervisor.add("sleeper", *SLEEP)
        child = supervisor.children[0]
        assert child.process
        first = child.process.pid
        assert supervisor.tick() == []
        os.kill(first, signal.SIGKILL)
        news: list[str] = []
        wait_for(lambda: news.extend(supervisor.tick()) or (child.process and child.process.pid != first))
        assert child.process and alive(child.process.pid)
        assert child.restarts == 1 and len(news) == 1 and news[0].startswith("sleeper ended (-9)")
        last = child.process.pid
    assert not alive(last)


def test_a_child_that_dies_at_once_is_started_ever_more_slowly(tmp_path: Path) -> None:
    with Supervisor(tmp_path / "logs") as supervisor:
        supervisor.add("fails", "no_such_command")
        child = supervisor.children[0]
        pauses = []
        while len(pauses) < 2:
            if supervisor.tick():
                pauses.append(child.due - time.monotonic())
            time.sleep(0.01)
        assert pauses[0] < pauses[1]
        assert "no_such_command" in child.log.read_text()


def test_stopping_ends_every_child_also_one_that_does_not_listen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runners.supervisor.STOP_SECONDS", 0.5)
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    with Supervisor(tmp_path / "logs") as supervisor:
        supervisor.add("sleeper", *SLEEP)
        supervisor.add("deaf", *SLEEP[:-1], deaf)
        pids = [child.process.pid for child in supervisor.children if child.process]
        wait_for(lambda: "deaf" in supervisor.children[1].log.read_text())
    assert len(pids) == 2 and not any(map(alive, pids))
