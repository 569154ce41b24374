"""A machine with something missing: no bubblewrap, no room on the disk. One clear line, and nothing is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab_play import ROOT, environment, lab_folder
from tests.test_kill import assert_sound, processes, rows, wait_for

pytestmark = pytest.mark.torch


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A data folder on a file system of its own."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(disk)], check=True)
    yield disk
    for pid in processes(disk / "lab"):
        os.kill(pid, 9)
    time.sleep(0.3)
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
def test_a_full_disk_stops_nothing_for_good(small_disk: Path, tmp_path: Path) -> None:
    data = small_disk / "lab"
    lab_folder(data)
    command = [sys.executable, "manage.py", "campaign", "--preset", "smoke", "--minutes", "1.5", "--json"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(data), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        wait_for(data, "select count(*) > 3 from research_result")
        ballast = small_disk / "ballast"
        try:
            with ballast.open("wb") as file:
                while True:
                    file.write(bytes(1 << 16))
        except OSError:
            pass
        time.sleep(12)
        assert processes(data, "campaign")
        ballast.unlink()
        before = rows(data, "select count(*) from research_result")[0][0]
        wait_for(data, f"select count(*) > {before + 3} from research_result", seconds=60)
        out, _ = process.communicate(timeout=180)
    assert json.loads(out.splitlines()[-1])["trials"] > before
    assert_sound(data)


def test_without_bubblewrap_one_line_says_what_to_do_and_the_level_is_lower(tmp_path: Path) -> None:
    """bwrap is hidden in a mount namespace of the command's own."""
    data = tmp_path / "lab"
    lab_folder(data)
    hide = 'mount --bind /dev/null $(command -v bwrap) && exec "$@"'
    command = [sys.executable, "-m", "benchmarks.nanochat", "train", "--preset", "smoke", "--json"]
    run = subprocess.run(
        ["unshare", "--mount", "sh", "-c", hide, "sh", *command],
        cwd=ROOT, env=environment(data), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    warnings = [line for line in run.stderr.splitlines() if "bubblewrap" in line]
    assert len(warnings) == 1 and "apt-get install bubblewrap" in warnings[0]
    assert json.loads(run.stdout)["bits_per_byte"] < 8


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--benchmark", "chess"], "no benchmark named 'chess'"),
        (["--preset", "huge"], "has no preset 'huge'; choose one of"),
        (["--start", "nothing"], "has no start 'nothing' for cpu; choose one of"),
        (["--preset", "gpu-60s"], "gpu-60s cannot run on this machine: "),
        (["--threads", "0"], "--threads must be 1 to 32"),
    ],
)
def test_bad_arguments_get_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], words: str) -> None:
    data = tmp_path / "lab"
    lab_folder(data)
    run = subprocess.run(
        [sys.executable, "manage.py", "campaign", *arguments], cwd=ROOT, env=environment(data), capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert run.returncode == 2
    assert words in run.stderr and len(run.stderr.strip().splitlines()) == 1
    assert not (data / "repositories").exists() and not processes(data)
