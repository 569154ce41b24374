"""`python -m benchmarks.nanochat`: the benchmark without the lab."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab_play import ROOT, environment, lab_folder

pytestmark = pytest.mark.torch


def call(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.nanochat", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment(data), capture_output=True, text=True, timeout=90)


def test_weights_that_were_trained_evaluate_to_the_same_score(tmp_path: Path) -> None:
    data, weights = tmp_path / "lab", tmp_path / "weights.safetensors"
    lab_folder(data)
    trained = call(data, "train", "--preset", "smoke", "--weights", str(weights), "--json")
    assert trained.returncode == 0, trained.stderr
    assert "loss" in trained.stderr  # progress
    again = call(data, "evaluate", "--preset", "smoke", "--weights", str(weights), "--json")
    assert again.returncode == 0, again.stderr
    first, second = json.loads(trained.stdout), json.loads(again.stdout)
    assert first["bits_per_byte"] == second["bits_per_byte"] and not first["findings"] + second["findings"]
    confirm = call(data, "evaluate", "--preset", "smoke", "--split", "val_confirm", "--weights", str(weights), "--json")
    assert json.loads(confirm.stdout)["bits_per_byte"] != first["bits_per_byte"]


def test_what_is_missing_is_said_in_one_line(tmp_path: Path) -> None:
    data = tmp_path / "lab"
    unprepared = call(data, "train", "--preset", "smoke")
    assert unprepared.returncode == 2 and unprepared.stdout == ""
    assert unprepared.stderr.strip() == ("error: nanochat has no data yet: run `python -m benchmarks.nanochat prepare`")
    lab_folder(data)
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "train.py").write_text("def main():\n    pass\n")
    (linked / "notes.py").symlink_to(data / "datasets")
    for arguments, words in (
        (["train", "--tree", str(linked)], "holds links (notes.py)"),
        (["train", "--tree", str(tmp_path)], "holds no train.py"),
        (["train", "--preset", "vast"], "has no preset 'vast'"),
        (["evaluate", "--weights", str(tmp_path / "none")], "none"),
        (["prepare", "--data", str(tmp_path / "nowhere")], "nowhere is not a folder"),
    ):
        run = call(data, *arguments)
        assert run.returncode == 2 and words in run.stderr and len(run.stderr.strip().splitlines()) == 1
