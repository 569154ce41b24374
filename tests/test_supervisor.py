"""The supervisor: one a data folder, children come back, and nobody outlives it. Real processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runners.supervisor import AlreadyRunning, PortTaken, Supervisor, listening, only_one

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
        assert child.restarts == 1 and len(news) == 1 and news[0].startswith("sleeper was killed by SIGKILL")
        last = child.process.pid
    assert not alive(last)


def test_a_child_that_dies_at_once_is_started_ever_more_slowly(tmp_path: Path) -> None:
    with Supervisor(tmp_path / "logs") as supervisor:
        supervisor.add("fails", "no_such_command")
        child = supervisor.children[0]
        pauses, news = [], []
        while len(pauses) < 3:
            news += supervisor.tick()
            if child.restarts > len(pauses):
                pauses.append(child.due - time.monotonic())
            time.sleep(0.01)
        assert pauses[0] <= 0 < pauses[1] < pauses[2]
    assert len(news) == 1, "the same reason is told once"
    assert "ended with code 1: Type 'manage.py help' for usage." in news[0]


def test_a_task_is_started_again_until_it_ends_well(tmp_path: Path) -> None:
    done = tmp_path / "done"
    twice = f"import pathlib; p = pathlib.Path({str(done)!r}); n = p.exists(); p.touch(); raise SystemExit(not n)"
    with Supervisor(tmp_path / "logs") as supervisor:
        supervisor.add("task", *SLEEP[:-1], twice, until_done=True)
        news: list[str] = []
        wait_for(lambda: news.extend(supervisor.tick()) or not supervisor.children)
    assert len(news) == 1 and "task ended with code 1" in news[0]


def test_a_listening_socket_outlives_the_child_that_serves_it(tmp_path: Path) -> None:
    serve = "import socket, sys; s = socket.socket(fileno={}); c = s.accept()[0]; c.send(b'hello'); c.close()"
    with listening("127.0.0.1", 0) as listener, Supervisor(tmp_path / "logs") as supervisor:
        descriptor = listener.fileno()
        supervisor.add("server", *SLEEP[:-1], serve.format(descriptor), sockets=(descriptor,))
        for served in (1, 2):  # each child serves one caller and dies
            with socket.create_connection(listener.getsockname(), 20) as caller:
                assert caller.recv(5) == b"hello"
            wait_for(lambda served=served: supervisor.tick() or supervisor.children[0].restarts == served)


def test_a_port_in_use_or_not_ours_is_refused_in_one_line() -> None:
    with listening("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(PortTaken, match=f"PORT={port + 1} make run"), listening("127.0.0.1", port, patience=0.2):
            raise AssertionError("two listeners")
    with listening("127.0.0.1", port):  # free again at once
        pass
    with pytest.raises(PortTaken, match="cannot listen on 192.0.2.1"), listening("192.0.2.1", port):
        raise AssertionError("an address of nobody")


def test_a_port_that_is_still_being_left_is_waited_for() -> None:
    with listening("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        threading.Timer(0.3, first.close).start()
        with listening("127.0.0.1", port, patience=10) as second:
            assert second.getsockname()[1] == port


def test_a_log_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runners.supervisor.LARGEST_LOG", 1000)
    (tmp_path / "sleeper.log").write_text("x" * 1001)
    with Supervisor(tmp_path) as supervisor:
        supervisor.add("sleeper", *SLEEP)
    assert (tmp_path / "sleeper.log").stat().st_size < 1000
    assert (tmp_path / "sleeper.old.log").stat().st_size == 1001


def test_stopping_ends_what_a_child_has_left_behind(tmp_path: Path) -> None:
    leave = f"import subprocess; print(subprocess.Popen(['sleep', '600']).pid, flush=True)\n{SLEEP[-1]}"
    with Supervisor(tmp_path) as supervisor:
        supervisor.add("parent", *SLEEP[:-1], leave)
        log = supervisor.children[0].log
        wait_for(lambda: log.read_text().strip())
        pid = int(log.read_text())
        assert alive(pid)
    wait_for(lambda: not alive(pid))


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
