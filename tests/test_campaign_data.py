"""A campaign on a fresh data folder: small data it prepares by itself, large data or text of one's own it asks for."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.contract import load
from benchmarks.data import DataError, data_folder, data_id
from benchmarks.nanochat.tokens.prepare import Manifest
from research.management.embedded import ensure_data
from tests.lab_play import ROOT, environment
from tests.test_kill import processes
from tests.text import write_corpus


@pytest.fixture
def fetched(tmp_path: Path) -> Path:
    """A data folder that holds the default text as if it had been fetched, and nothing prepared."""
    docs = tmp_path / "lab" / "datasets" / "nanochat" / "docs"
    docs.mkdir(parents=True)
    write_corpus(docs)
    return tmp_path / "lab"


def test_tokens_of_tiny_size_are_prepared_with_progress_and_only_once(
    fetched: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAB_DATA", str(fetched))
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    ensure_data("nanochat", "gpu-tiny")
    said = capsys.readouterr()
    assert not said.out and "training a tokenizer of 512 tokens" in said.err
    identity = data_id("nanochat", load("nanochat").preset("gpu-tiny"))
    assert Manifest.read(data_folder("nanochat") / identity[:16]).vocabulary == 512
    ensure_data("nanochat", "gpu-tiny")
    assert not capsys.readouterr().err


@pytest.mark.parametrize("preset", ["gpu-60s", "official"])
def test_data_of_gigabytes_are_asked_for(preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_DATA", str(tmp_path))
    with pytest.raises(DataError, match=f"no data for {preset} yet: run .* prepare --preset {preset}"):
        ensure_data("nanochat", preset)
    assert not list(tmp_path.iterdir())


@pytest.mark.torch
@pytest.mark.slow
def test_a_campaign_of_tokens_begins_on_a_fresh_folder_and_one_stopped_in_between_goes_on(fetched: Path) -> None:
    command = [sys.executable, "manage.py", "campaign", "--preset", "gpu-tiny", "--minutes", "1", "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, env=environment(fetched), text=True, **pipes) as stopped:
        while not any((fetched / "datasets" / "nanochat").glob(".tokens-*")):
            assert stopped.poll() is None
            time.sleep(0.02)
        stopped.send_signal(signal.SIGINT)
        assert "the same command goes on from here" in stopped.communicate(timeout=60)[1]
    assert stopped.returncode == 130
    whole = subprocess.run(command, cwd=ROOT, env=environment(fetched), text=True, timeout=240, **pipes)
    assert whole.returncode == 0, whole.stderr
    assert json.loads(whole.stdout)["trials"] > 0 and not processes(fetched)
