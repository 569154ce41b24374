"""`manage.py lab` as `make run` starts it: real processes, a real port, nothing fetched from the network."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab_play import ROOT, environment

CLICK = {"Sec-Fetch-Mode": "navigate"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def manage(data: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "manage.py", *words]
    return subprocess.run(command, cwd=ROOT, env=environment(data), capture_output=True, text=True, timeout=60)


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it took longer than {seconds} s"
        time.sleep(0.05)


@dataclass
class Started:
    """A lab of its own on a fresh folder, as its console shows it."""

    process: subprocess.Popen[str]
    data: Path
    port: int
    link: str

    def ask(self, method: str, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def children(self) -> dict[str, int]:
        """Process ids by command: web, attach, control."""
        found = {}
        for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if len(words) > 2 and words[1].endswith(b"manage.py"):  # not one between fork and exec
                found[words[2].decode()] = int(pid)
        return found

    def processes(self) -> list[int]:
        """All processes that work on this folder, whoever their parent is."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and f"LAB_DATA={self.data}\0".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return found


def start(data: Path, errors: Path) -> Started:
    port = free_port()
    command = [sys.executable, "manage.py", "lab", "--no-demo", "--port", str(port)]
    with errors.open("w") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(data), stdout=subprocess.PIPE, stderr=file, text=True
        )
    assert process.stdout
    words = ""
    for line in process.stdout:
        words += line
        if line.startswith("Ctrl-C"):
            break
    found = re.search(rf"http://127\.0\.0\.1:{port}(/sign-in/[\w-]+/)", words)
    assert found, words + errors.read_text()
    return Started(process, data, port, found.group(1))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    folder = tmp_path_factory.mktemp("run")
    lab = start(folder / "data", folder / "errors")
    yield lab
    lab.process.kill()
    lab.process.communicate()
    wait_for(lambda: not lab.processes(), 20)


def test_the_page_answers_and_the_lab_gets_ready(lab: Started) -> None:
    status, headers, body = lab.ask("GET", "/healthz")
    assert (status, body) == (200, b"ok\n") and "Content-Security-Policy" in headers
    assert lab.data.stat().st_mode & 0o777 == 0o700
    assert (lab.data / "secret_key").stat().st_mode & 0o777 == 0o600
    wait_for(lambda: lab.ask("GET", "/readyz")[0] == 200)
    assert lab.ask("GET", "/")[0] == 302  # to the sign-in page


def test_the_printed_link_signs_in_with_one_click_and_once(lab: Started) -> None:
    assert lab.ask("HEAD", lab.link)[0] == 200
    status, headers, body = lab.ask("GET", lab.link)  # the preview of a chat program
    assert status == 200 and b"<button" in body and "sessionid" not in headers.get("Set-Cookie", "")
    status, headers, _ = lab.ask("GET", lab.link, **CLICK)
    assert (status, headers["Location"]) == (302, "/")
    assert "lab_session_" in headers["Set-Cookie"]
    status, _, body = lab.ask("GET", lab.link, **CLICK)
    assert status == 410 and b"make signin" in body


def test_a_fresh_link_can_be_had_while_the_lab_runs(lab: Started) -> None:
    done = manage(lab.data, "signin")
    path = done.stdout.strip().removeprefix(f"http://127.0.0.1:{lab.port}")
    assert lab.ask("GET", path, **CLICK)[0] == 302
    nobody = manage(lab.data, "signin", "nobody")
    assert nobody.returncode == 2 and nobody.stderr.strip() == (
        "CommandError: there is no user 'nobody'; there are: admin"
    )


def test_the_web_process_is_small(lab: Started) -> None:
    lab.ask("GET", "/sign-in/")
    rows = Path(f"/proc/{lab.children()['web']}/status").read_text()
    resident = int(re.search(r"VmRSS:\s+(\d+) kB", rows).group(1)) / 1024  # type: ignore[union-attr]
    assert resident < 120


def test_a_taken_port_is_one_clear_line_before_anything_starts(lab: Started, tmp_path: Path) -> None:
    done = manage(tmp_path / "other", "lab", "--no-demo", "--port", str(lab.port))
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.strip() == (
        f"CommandError: port {lab.port} is taken by another program; choose a free one: PORT={lab.port + 1} make run"
    )
    assert not (tmp_path / "other" / "logs").exists()


def test_a_second_lab_on_the_same_folder_is_one_clear_line(lab: Started) -> None:
    done = manage(lab.data, "lab", "--no-demo", "--port", str(free_port()))
    assert done.returncode == 2 and f"in use by process {lab.process.pid}" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_nobody_is_refused_after_kill_9_of_the_web_process(lab: Started) -> None:
    """The socket is the supervisor's: a request made while there is no web process waits for the next one."""
    before = lab.children()["web"]
    os.kill(before, signal.SIGKILL)
    killed = time.monotonic()
    assert lab.ask("GET", "/healthz")[0] == 200
    assert time.monotonic() - killed < 20
    assert lab.children()["web"] != before
    assert lab.ask("GET", "/sign-in/")[0] == 200


def test_ctrl_c_stops_everything_without_a_traceback(lab: Started) -> None:
    assert lab.process.stdout
    lab.process.send_signal(signal.SIGINT)
    began = time.monotonic()
    lab.process.wait(30)
    assert time.monotonic() - began < 15
    assert lab.process.returncode == 0
    wait_for(lambda: not lab.processes(), 5)
    errors = (lab.data.parent / "errors").read_text()
    assert "Traceback" not in errors and "web was killed by SIGKILL" in errors
    assert not (lab.data / "address").exists()
    with closing(sqlite3.connect(lab.data / "lab.sqlite3")) as database:
        assert database.execute("select username, is_superuser, password like '!%' from auth_user").fetchall() == [
            ("admin", 1, 1)
        ]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"LAB_DATA": "/proc/lab"}, "error: cannot make the data folder /proc/lab: No such file or directory"),
        ({"LAB_PORT": "1"}, "error: unknown setting LAB_PORT; the lab knows LAB_DATA"),
        ({"DATABASE_URL": "mysql://x"}, "error: DATABASE_URL must begin with postgresql://"),
    ],
)
def test_a_wrong_environment_is_one_clear_line(variables: dict[str, str], words: str, tmp_path: Path) -> None:
    command = [sys.executable, "manage.py", "lab"]
    together = {**environment(tmp_path / "data"), **variables}
    done = subprocess.run(command, cwd=ROOT, env=together, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(words)


@pytest.mark.parametrize(("port", "host"), [("0", "127.0.0.1"), ("70000", "127.0.0.1"), ("8000", "192.0.2.1")])
def test_an_address_that_cannot_be_served_is_one_clear_line(port: str, host: str, tmp_path: Path) -> None:
    done = manage(tmp_path / "data", "lab", "--no-demo", "--port", port, "--host", host)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "port" in done.stderr


def test_a_signal_while_it_starts_ends_it_quietly(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "manage.py", "lab", "--no-demo", "--port", str(free_port())],
        cwd=ROOT, env=environment(tmp_path / "data"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(lambda: "sqlite3" in Path(f"/proc/{process.pid}/maps").read_text())  # Django's models are loading
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
