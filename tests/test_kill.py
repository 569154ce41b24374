"""kill -9 of control, worker and supervisor in a real campaign: nothing is lost, nothing is counted twice."""

from __future__ import annotations

import json
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

pytestmark = pytest.mark.torch

MINUTES = "0.4"
LONGER = "0.7"  # until its worker and control were killed and replaced


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Path]:
    """A data folder with prepared text; whatever still runs on it afterwards is killed."""
    data = lab_folder(tmp_path / "lab")
    yield data
    for pid in processes(data):
        os.kill(pid, signal.SIGKILL)


def campaign(data: Path, minutes: str = MINUTES) -> subprocess.Popen[bytes]:
    command = [sys.executable, "manage.py", "campaign", "--preset", "smoke", "--minutes", minutes, "--auto-approve"]
    return subprocess.Popen(
        [*command, "--json"], cwd=ROOT, env=environment(data), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def processes(data: Path, word: str = "manage.py") -> list[int]:
    """Live processes of the lab on this data folder whose command line holds `word`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
                mine = f"LAB_DATA={data}\0".encode() in (entry / "environ").read_bytes() + b"\0"
            except OSError:
                continue
            if mine and word in command:
                found.append(int(entry.name))
    return found


def rows(data: Path, query: str) -> list[tuple]:
    with closing(sqlite3.connect(f"file:{data}/lab.sqlite3?mode=ro", uri=True, timeout=20)) as database:
        return database.execute(query).fetchall()


def wait_for(data: Path, query: str, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if rows(data, query)[0][0]:
                return
        except sqlite3.OperationalError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {query}")


def assert_sound(data: Path) -> None:
    """Invariants over all rows of a campaign."""
    assert rows(data, "select count(*) from research_trial where state = 'leased'") == [(0,)]
    assert rows(data, "select count(*) from research_lease where released is null") == [(0,)]
    assert rows(
        data,
        "select count(*) from research_trial t left join research_result r on r.trial_id = t.id "
        "where (t.state = 'ended') != (r.id is not null)",
    ) == [(0,)]
    assert rows(data, "select count(*) from research_result r join research_trial t on t.id = r.trial_id "
                      "where r.generation != t.generation") == [(0,)]  # fmt: skip
    assert rows(
        data,
        "select count(*) from research_series s where next_seq != "
        "(select coalesce(sum(count), 0) from research_chunk c where c.series_id = s.id)",
    ) == [(0,)]
    assert rows(
        data, "select count(*) from research_experiment e where state = 'ended' and purpose = 'compare' "
              "and not exists (select 1 from research_verdict v where v.experiment_id = e.id)",
    ) == [(0,)]  # fmt: skip


def assert_a_second_lab_is_refused(data: Path) -> None:
    command = [sys.executable, "manage.py", "lab", "--no-demo"]
    second = subprocess.run(command, cwd=ROOT, env=environment(data), capture_output=True, text=True, timeout=180)
    assert second.returncode != 0
    assert "is in use by process" in second.stderr and len(second.stderr.strip().splitlines()) == 1


def test_a_killed_campaign_is_resumed_by_the_same_command_and_survives_kill_9_of_worker_and_control(lab: Path) -> None:
    process = campaign(lab, LONGER)
    wait_for(lab, "select count(*) > 2 from research_result")
    assert_a_second_lab_is_refused(lab)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60  # the machine may be busy
    while processes(lab) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes(lab)
    found = rows(lab, "select count(*) from research_result")[0][0]
    again = campaign(lab, LONGER)
    wait_for(lab, f"select count(*) > {found} from research_result")
    for word in ("attach", "control", "attach"):
        before = rows(lab, "select count(*) from research_result")[0][0]
        wait_for(lab, "select count(*) from research_trial where state = 'leased'")
        victims = processes(lab, word)
        assert victims
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        wait_for(lab, f"select count(*) > {before + 1} from research_result", seconds=30)
        assert time.monotonic() - killed < 30
    out, _ = again.communicate(timeout=180)
    result = json.loads(out.splitlines()[-1])
    assert again.returncode == 0
    assert result["trials"] == rows(lab, "select count(*) from research_result")[0][0] > found
    assert len(result["closing_pairs"]) == 5
    assert rows(lab, "select count(*) from research_project") == [(1,)]
    assert_sound(lab)
    interrupted = "select count(*) from research_trial where generation > 1 or note like '% is gone'"
    assert rows(lab, interrupted)[0][0]  # on a slow machine its time may be over before it is leased again
    assert not processes(lab)


@pytest.mark.slow
def test_ctrl_c_ends_a_campaign_and_all_its_processes(lab: Path) -> None:
    process = campaign(lab)
    wait_for(lab, "select count(*) from research_trial")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert not processes(lab)
