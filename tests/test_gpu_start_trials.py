"""The starts of the GPU lane as trials of the tiny preset on a CPU: sandbox, clock, judge and audits, all for real."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.contract import load
from benchmarks.nanochat import evaluate
from runners.sandbox import Sandbox
from tests import token_play as play

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("start", ["modern", pytest.param("vanilla", marks=pytest.mark.slow)])
def test_a_start_is_scored_without_findings(start: str, tmp_path: Path) -> None:
    play.write_data(tmp_path / "data")
    files = {path: text.decode() for path, text in load("nanochat").start_files(start, "gpu-tiny").items()}
    preset = load("nanochat").preset("gpu-tiny")
    points: dict[str, list[float]] = {}
    with Sandbox.start(6, inside=evaluate.INSIDE, preload=evaluate.PRELOAD, setup_statement=evaluate.SETUP) as box:
        evaluator = evaluate.Evaluator()
        outcome = evaluator.run(
            play.task(files, tmp_path / "data", preset, confirming=True), box,
            lambda name, steps, values: points.setdefault(name, []).extend(values),
        )  # fmt: skip
        evaluator.close()
    assert outcome.failure is None, outcome.failure
    assert outcome.score is not None and outcome.observations == []
    assert len(points["loss"]) >= 5 and points["loss"][-1] < points["loss"][0]
    assert outcome.seconds["train_cpu"] <= preset.budget_seconds
