"""The demo project of a first start: its text is fetched beside the lab, then it researches. No network is used."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.lab_play import ROOT, environment, lab_folder
from tests.test_run import free_port, manage, wait_for

FIRST_CURVE_SECONDS = 60


def rows(data: Path, query: str) -> list[tuple]:
    with closing(sqlite3.connect(f"file:{data}/lab.sqlite3?mode=ro", uri=True, timeout=20)) as database:
        try:
            return database.execute(query).fetchall()
        except sqlite3.OperationalError:  # not migrated yet
            return [(0,)]


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    yield lab_folder(tmp_path / "data")


def test_the_demo_belongs_to_the_first_person_and_begins_once(data: Path) -> None:
    for _ in range(2):
        done = manage(data, "demo")
        assert done.returncode == 0, done.stderr
    assert rows(data, "select name, benchmark, preset, start, single_person, u.username, u.is_superuser "
                      "from research_project p join auth_user u on u.id = p.started_by_id") == [
        ("demo", "nanochat", "cpu", "vanilla", 1, "admin", 1)
    ]  # fmt: skip
    assert rows(data, "select researcher, u.username from research_thread t join auth_user u on u.id = steered_by_id"
                ) == [("catalogue", "admin")] * 2  # fmt: skip


def test_a_text_that_cannot_be_fetched_is_told_in_one_line_and_in_the_feed_once(tmp_path: Path) -> None:
    data = lab_folder(tmp_path / "data", text=False)
    nowhere = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "manage.py", "demo"],
            cwd=ROOT, env={**environment(data), **nowhere}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert "pip could not download" in done.stderr
    notes = [text for (text,) in rows(data, "select text from research_event where kind = 'note' order by seq")]
    assert len(notes) == 2
    assert "fetching the text" in notes[0] and "the demo project waits" in notes[1]


@pytest.mark.torch
def test_a_first_start_draws_a_curve_within_a_minute_and_the_next_start_goes_on(tmp_path: Path) -> None:
    data = lab_folder(tmp_path / "data", database=False)
    newest = 0
    for start in ("first", "second"):
        command = [sys.executable, "manage.py", "lab", "--port", str(free_port())]
        with (tmp_path / start).open("w") as log:
            lab = subprocess.Popen(command, cwd=ROOT, env=environment(data), stdout=log, stderr=log)
        try:
            wait_for((data / "lab.sqlite3").exists)
            drawn = f"select count(*) from research_series where id > {newest} and next_seq > 5"
            wait_for(lambda drawn=drawn: rows(data, drawn)[0][0], FIRST_CURVE_SECONDS)
        finally:
            lab.send_signal(signal.SIGINT)
            lab.wait(30)
        newest = rows(data, "select max(id) from research_series")[0][0]
        text = (tmp_path / start).read_text()
        assert lab.returncode == 0 and "it starts again" not in text and "Traceback" not in text, text
        time.sleep(0.1)
    assert rows(data, "select count(*) from research_project") == [(1,)]
