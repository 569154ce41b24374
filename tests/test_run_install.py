"""What `make run` does before the lab starts: system packages and progress. No package is installed here."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BASH = shutil.which("bash") or "bash"
TOOLS = ("bash", "dirname", "basename", "cat", "sleep", "mktemp", "rm", "env")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder that is all of PATH: a machine with Python, git and bubblewrap, and a person who is not root."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        (folder / tool).symlink_to(str(shutil.which(tool)))
    for tool in ("git", "bwrap"):
        script(folder / tool, "exit 0")
    (folder / "python3").symlink_to(sys.executable)
    script(folder / "id", "echo 1000")
    return folder


def script(file: Path, body: str) -> None:
    file.write_text(f"#!{BASH}\n{body}\n")
    file.chmod(0o755)


def system(path: Path, for_whom: str = "run", **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(path), "VENV": str(path / "none"), **variables}
    command = [BASH, str(ROOT / ".ci" / "system"), for_whom]
    return subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30
    )


def phase(words: str, command: str) -> subprocess.CompletedProcess[str]:
    text = f'set -eu; . .ci/phase; work() {{ {command}; }}; phase "{words}" work'
    return subprocess.run([BASH, "-c", text], cwd=ROOT, capture_output=True, text=True, timeout=30)


def test_nothing_is_said_where_nothing_is_missing(path: Path) -> None:
    done = system(path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_bubblewrap_one_line_says_what_to_do_and_it_goes_on(path: Path) -> None:
    (path / "bwrap").unlink()
    done = system(path)
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "missing: bubblewrap; install with: sudo apt-get install bubblewrap",
        "going on without bubblewrap",
    ]
    assert system(path, "test").returncode == 1, "tests do not go on without it"


def test_without_git_it_stops(path: Path) -> None:
    (path / "git").unlink()
    done = system(path)
    assert done.returncode == 1 and done.stderr == "missing: git; install with: sudo apt-get install git\n"


def test_root_installs_what_is_missing_after_an_update_of_the_lists(path: Path, tmp_path: Path) -> None:
    (path / "bwrap").unlink()
    script(path / "id", "echo 0")
    calls = tmp_path / "calls"
    script(path / "apt-get", f'echo "$@" >>{calls}; [ "$1" = update ] && exit 0; [ "$(wc -l <{calls})" -gt 2 ]')
    (path / "wc").symlink_to(str(shutil.which("wc")))
    done = system(path)
    assert done.returncode == 0, done.stderr
    install = "install -y --no-install-recommends bubblewrap"
    assert calls.read_text().splitlines() == [install, "update", install]
    assert "System packages: bubblewrap: done in" in done.stderr


def test_an_old_python_is_named_with_the_remedy(path: Path) -> None:
    script(path / "python3.10", 'case "$1" in -c) exit 1;; *) echo Python 3.10.12;; esac')
    done = system(path, PYTHON="python3.10")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "Python 3.11, 3.12 or 3.13 is needed and python3.10 is Python 3.10.12; name another: PYTHON=python3.12 make run"
    ]


def test_a_phase_is_silent_but_for_its_progress() -> None:
    done = phase("Python packages", "echo noise; echo noise >&2; sleep 0.3")
    assert (done.returncode, done.stdout) == (0, "")
    assert re.fullmatch(r"Python packages \.\.\.\nPython packages: done in \d s\n", done.stderr)


def test_a_failed_phase_shows_all_that_was_said() -> None:
    done = phase("Python packages", "seq 1 3000; echo no matching distribution >&2; return 3")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[1].startswith("Python packages: failed after")
    assert lines[2:] == [*map(str, range(1, 3001)), "no matching distribution"]


def test_stopping_a_phase_stops_all_that_it_has_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    text = f'. .ci/phase; work() {{ sleep 600 & echo $! >{pid}; wait; }}; phase "Long work" work'
    process = subprocess.Popen([BASH, "-c", text], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not (pid.is_file() and pid.read_text().strip()):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130 and "the same command goes on" in errors
    with pytest.raises(ProcessLookupError):
        for _ in range(100):  # it is dying
            os.kill(int(pid.read_text()), 0)
            time.sleep(0.05)
