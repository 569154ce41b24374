"""Prepare the data of a benchmark where the lab runs: a process of its own, whose last line says how far it is.

That line lies among the lab's logs, where every process of the lab can read it. Whether data are there is told by the
data alone; a preparation that was cut off is begun again and finds what it had.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
ASKED = "waits for the lab to begin it"
EXIT = "exit "  # begins the last line, once the process has ended
SILENT = 300.0  # seconds without a word, after which nobody is at work on it
LONGEST = 300  # characters of a line that are shown


@dataclass(frozen=True)
class Preparation:
    """The newest preparation of some data: its last words, and whether somebody is at work on it."""

    line: str
    running: bool

    @property
    def failed(self) -> bool:
        return not self.running


def log_of(folder: Path, benchmark: str, data: str) -> Path:
    """`folder`: of the lab's data."""
    return folder / "logs" / f"prepare-{benchmark}{f'-{data}' if data else ''}.log"


def last(log: Path) -> Preparation | None:
    """None where nobody has asked for it yet."""
    try:
        text, silent = log.read_text(errors="replace"), time.time() - log.stat().st_mtime
    except FileNotFoundError:
        return None
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [ASKED]
    ended = lines[-1].startswith(EXIT)
    line = lines[-2] if ended and len(lines) > 1 else lines[-1]
    return Preparation(line[:LONGEST], not ended and silent < SILENT)


def ask(log: Path) -> bool:
    """Note that it is wanted, for whoever looks; False where it runs already."""
    if (found := last(log)) is not None and found.running:
        return False
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(f"{ASKED}\n")
    return True


def prepare(log: Path, folder: Path, arguments: Sequence[str]) -> int:
    """Run a benchmark's own command to its end; its exit status. What it says goes into the log, line by line.

    `folder`: of the lab's data. `arguments`: to Python.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "LAB_DATA": str(folder)}
    with log.open("w") as out:
        status = subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=out, check=False
        ).returncode
    with log.open("a") as out:
        out.write(f"\n{EXIT}{status}\n")
    return status
