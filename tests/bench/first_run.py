"""A newcomer's first quarter of an hour: `make run` on a fresh data folder, watched in a real browser.

Seconds from the command (packages installed): the page answers, a curve moves on a thread page, the first idea is
screened, the first merge request is open. Nothing is helped along. Only when named: it takes as long as the search.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ABOUT = "`make run` to first curve, first screened idea, first merge request (20 minutes at most)"
COMMAND = "python -m tests.bench first_run"
ROOT = Path(__file__).parents[2]
LIMIT = 20 * 60.0
TARGET = {"curve_s": 60, "screened_s": 180, "request_s": 900}
SCREENED = """
SELECT count(*) FROM research_experiment e WHERE e.purpose = 'compare' AND 2 <= (
  SELECT count(*) FROM research_trial t JOIN research_result r ON r.trial_id = t.id
  WHERE t.experiment_id = e.id AND t.stage = 'screen')"""
REQUESTS = "SELECT count(*) FROM research_mergerequest"
# In the page: some line of a chart has been sent a second point since the page was opened.
MOVES = """() => [...document.querySelectorAll("lab-chart")]
  .flatMap(chart => JSON.parse(chart.getAttribute("spec")).lines)
  .some(line => Object.values(window.lab?.live?.points?.(`trial:${line.trial}`) ?? {}).some(n => n > 1))"""
THREAD = "SELECT public_id FROM research_thread ORDER BY number"


def measure() -> dict[str, object]:
    with TemporaryDirectory(prefix="bench-") as folder:
        found = watch(Path(folder) / "data")
    return {"figure": found["curve_s"], "unit": "s to the first moving curve", "command": COMMAND, "target": TARGET,
            **found}  # fmt: skip


def watch(data: Path) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    port = free_port()
    began = time.monotonic()
    lab = subprocess.Popen(
        ["make", "run", f"PORT={port}", f"DATA={data}", f"VENV={Path(sys.prefix)}"], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    found: dict[str, Any] = {}
    try:
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page()
            page.goto(_link(lab))
            page.wait_for_selector("h1")
            found["page_s"] = _since(began)
            found["curve_s"] = _moving_curve(page, f"http://127.0.0.1:{port}", data, began)
            browser.close()
        found["screened_s"] = _until(data, SCREENED, began)
        found["request_s"] = _until(data, REQUESTS, began)
    finally:
        os.killpg(lab.pid, signal.SIGINT)
        lab.wait(60)
    return found


def _link(lab: subprocess.Popen[str]) -> str:
    assert lab.stdout is not None
    for line in lab.stdout:
        print(line, end="", file=sys.stderr)
        if match := re.search(r"http\S+/sign-in/\S+", line):
            return match.group()
    sys.exit("`make run` ended without a link; its output stands above")


def _moving_curve(page: Any, address: str, data: Path, began: float) -> float:
    """A drawn line that gets another point while it is watched."""
    while not (threads := _rows(data, THREAD)):
        time.sleep(0.2)
    page.goto(f"{address}/t/{threads[0][0]}/")
    page.wait_for_selector("lab-chart canvas", timeout=LIMIT * 1000)
    page.wait_for_function(MOVES, timeout=LIMIT * 1000)
    return _since(began)


def _until(data: Path, question: str, began: float) -> float | None:
    while _since(began) < LIMIT:
        if _rows(data, question)[0][0]:
            return _since(began)
        time.sleep(0.5)
    return None


def _rows(data: Path, question: str) -> list[tuple[Any, ...]]:
    try:
        with closing(sqlite3.connect(f"file:{data / 'lab.sqlite3'}?mode=ro", uri=True)) as connection:
            return connection.execute(question).fetchall()
    except sqlite3.OperationalError:  # the tables are being made
        return []


def _since(began: float) -> float:
    return round(time.monotonic() - began, 1)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
