"""A newcomer begins a project on kernels: the form prepares the data, says how far it is, and keeps what was typed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.test import Client, override_settings

from benchmarks.data import data_folder, prepare_command
from research.models import Project
from research.tasks import prepare_data
from runners import preparing
from runners.queues import control
from tests.cast import toy_benchmarks
from tests.kernel_board_play import Player, begin, candidate, prepare

PAGE = "/projects/new/"
TYPED = {
    "benchmark": "kernels", "preset": "cpu", "start": "reference", "researcher": "catalogue", "threads": "3",
    "name": "fast", "question": "How fast can plain kernels be?",
}  # fmt: skip


@pytest.fixture
def mia(client: Client, member: User) -> Client:
    client.force_login(member)
    return client


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A lab whose data folder holds nothing."""
    monkeypatch.setenv("LAB_DATA", str(tmp_path))
    with override_settings(DATA_DIR=tmp_path):
        yield tmp_path


def text(client: Client, **asked: str) -> str:
    return client.get(PAGE, {"benchmark": "kernels", **asked}).content.decode()


def test_without_data_the_form_offers_to_prepare_them(mia: Client, empty: Path) -> None:
    page = text(mia)
    assert "kernels has no data here yet" in page and 'value="prepare"' in page and 'id="begin" disabled' in page
    assert "python -m benchmarks.kernels prepare" in page and "hx-get" not in page.partition('id="data"')[2][:200]


def test_asking_rings_the_control_worker_once_and_keeps_what_was_typed(mia: Client, empty: Path) -> None:
    waiting = control.pending_count()
    for _ in range(2):
        reply = mia.post(PAGE, TYPED | {"act": "prepare"})
        page = reply.content.decode()
        assert reply.status_code == 200 and not Project.objects.exists()
        assert "How fast can plain kernels be?" in page and 'value="fast"' in page
        assert preparing.ASKED in page and 'hx-trigger="every 1s"' in page
    assert control.pending_count() == waiting + 1
    assert "part=data" in page and "&amp;preset=cpu" in page


def test_progress_is_the_last_line_and_a_failure_can_be_tried_again(mia: Client, empty: Path) -> None:
    log = preparing.log_of(empty, "kernels", "")
    assert preparing.ask(log) and not preparing.ask(log)
    log.write_text("1 of 18: add_rms_norm\n7 of 18: <gemm>\n")
    part = text(mia, part="data")
    assert "being prepared" in part and "7 of 18: &lt;gemm&gt;" in part and "<form" not in part
    log.write_text("7 of 18: gemm\nOSError: No space left on device\n\nexit 1\n")
    part = text(mia, part="data")
    assert "could not be prepared" in part and "No space left on device" in part and "Try again" in part
    assert preparing.ask(log), "after a failure"
    long_ago = time.time() - preparing.SILENT - 1
    os.utime(log, (long_ago, long_ago))
    assert "Try again" in text(mia, part="data"), "whoever was at it has gone"


def test_a_preparation_that_breaks_leaves_its_last_words(empty: Path) -> None:
    (empty / "datasets").write_text("in the way")
    log = preparing.log_of(empty, "kernels", "")
    assert preparing.prepare(log, empty, prepare_command("kernels", "cpu", "")) != 0
    found = preparing.last(log)
    assert found is not None and found.failed and "Error" in found.line and "datasets" in found.line


@pytest.mark.slow
def test_the_task_prepares_and_the_form_is_told(mia: Client, empty: Path) -> None:
    assert preparing.ask(preparing.log_of(empty, "kernels", ""))
    prepare_data.call_local("kernels", "cpu")
    assert (data_folder("kernels") / "current").is_file()
    part = text(mia, part="data")
    assert "The data of kernels are there" in part and 'id="begin" hx-swap-oob="true">' in part
    assert 'id="data"' not in text(mia), "nothing to say once they are there"
    reply = mia.post(PAGE, TYPED)
    assert reply["Location"] == "/p/fast/" and len(Project.objects.get().problems) == 18


@pytest.fixture
def kernels(db: None) -> Iterator[Project]:
    with toy_benchmarks():
        prepare()
        yield begin()


def test_what_is_noise_is_said_on_the_board(client: Client, reviewer: User, kernels: Project) -> None:
    client.force_login(reviewer)
    player, thread = Player(kernels), kernels.threads.order_by("number")[0]
    address = "/p/kernels/kernels/"
    assert "is noise" not in client.get(address).content.decode()
    player.measure(candidate(thread, {"rms_norm": "# one pass"}), {"rms_norm": 2.0})
    page = client.get(address).content.decode()
    assert "1 measured problem still has the reference's own code: what its cells differ from 0.5 by is noise" in page
    request = player.gain(thread, {"rms_norm": 3.0})
    request.approve(request.commit)
    assert "is noise" not in client.get(address).content.decode()
