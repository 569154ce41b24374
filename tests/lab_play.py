"""Data folders of labs that tests start: made once, by the commands that a person types, and copied for each."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from tests.text import write_corpus

ROOT = Path(__file__).resolve().parent.parent


def environment(data: Path) -> dict[str, str]:
    return {**os.environ, "LAB_DATA": str(data), "DJANGO_SETTINGS_MODULE": "recursive_web.settings"}


def lab_folder(data: Path, *, text: bool = True, database: bool = True) -> Path:
    """A folder that is not there yet, with a small text prepared and an empty database migrated."""
    left_out = [name for name, wanted in (("datasets", text), ("lab.sqlite3*", database)) if not wanted]
    return Path(shutil.copytree(_made(), data, symlinks=True, ignore=shutil.ignore_patterns(*left_out)))


@cache
def _made() -> Path:
    """By the first worker of the runner that wants it; another one that wants it meanwhile waits."""
    folder = Path(os.environ["TESTS_SHARED"])
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "made").exists():
            _make(folder)
            (folder / "made").touch()
    return folder / "data"


def _make(folder: Path) -> None:
    text, data = folder / "text", folder / "data"
    for leftover in (text, data):  # of a worker that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    text.mkdir()
    write_corpus(text)
    prepare = ["-m", "benchmarks.nanochat", "prepare", "--data", str(text)]
    for words in (prepare, ["manage.py", "migrate", "--verbosity", "0"]):
        command = [sys.executable, *words]
        subprocess.run(command, check=True, cwd=ROOT, env=environment(data), capture_output=True, timeout=180)
