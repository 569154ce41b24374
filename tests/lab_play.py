"""Data folders of labs that tests start: made once, by the commands that a person types, and copied for each."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
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
    folder = Path(tempfile.mkdtemp(prefix="lab-made-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "text").mkdir()
    write_corpus(folder / "text")
    data = folder / "data"
    prepare = ["-m", "benchmarks.nanochat", "prepare", "--data", str(folder / "text")]
    for words in (prepare, ["manage.py", "migrate", "--verbosity", "0"]):
        command = [sys.executable, *words]
        subprocess.run(command, check=True, cwd=ROOT, env=environment(data), capture_output=True, timeout=180)
    return data
