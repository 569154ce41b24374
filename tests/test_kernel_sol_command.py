"""`sol` as a person calls it: a table, JSON, and the peaks of this machine."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.kernels.bounds import BoundError, Peaks, Precision
from benchmarks.kernels.commands import COMMANDS, sol
from tests.kernel_play import double, problem
from tests.test_kernel_anchors import with_figures

pytestmark = pytest.mark.torch


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        command.arguments(commands.add_parser(name, help=command.HELP))
    return parser.parse_args(["sol", *words])


def test_every_workload_has_its_bound_or_the_reason_why_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    by_value = problem(tmp_path / "by_value", {"x": ("n", "float32")}, {"y": ("n", "float32")}, "return x[x > 0]")
    problems = [with_figures(tmp_path / "known", (0.0004, 0.002)), double(tmp_path / "own"), by_value]
    assert sol.run(options("--json"), problems) == 0
    known, own, without = json.loads(capsys.readouterr().out)["workloads"]
    assert (known["bytes"], known["macs"], known["roof"]) == (32, 0, "memory")
    assert known["computed_ms"] == pytest.approx(0.0004, rel=1e-3)
    assert known["scaled_ms"] > known["published_ms"] == 0.0004
    assert (own["computed_ms"], own["scaled_ms"]) == (known["computed_ms"], None)
    assert without["computed_ms"] is None
    assert "cannot be found without data" in without["why"]
    assert sol.run(options(), problems) == 0
    text = capsys.readouterr().out
    assert "3 workloads, 1 without a computed bound" in text
    assert len(text.splitlines()) == 6


def test_bounds_can_be_made_of_calibrated_peaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peaks = Peaks("CPU", 1e9, {Precision.FP32: 1e9}, "calibrated")
    (tmp_path / "peaks.json").write_text(json.dumps(peaks.to_json()))
    assert sol.run(options("--json", "--peaks", str(tmp_path / "peaks.json")), [double(tmp_path / "p")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["peaks"]["source"] == "calibrated"
    assert found["workloads"][0]["computed_ms"] == pytest.approx(0.0004 + 32e-6)
    for text in ("", "[]", "{}"):
        (tmp_path / "peaks.json").write_text(text)
        with pytest.raises(BoundError, match="--calibrate"):
            sol.run(options("--peaks", str(tmp_path / "peaks.json")), [])


def test_this_machine_can_be_calibrated(capsys: pytest.CaptureFixture[str]) -> None:
    assert sol.run(options("--calibrate", "cpu"), []) == 0
    peaks = Peaks.from_json(json.loads(capsys.readouterr().out))
    assert peaks.source == "calibrated"
    assert 1e8 < peaks.bytes_per_second < 1e13
    assert 1e8 < peaks.macs_per_second[Precision.FP32] < 1e15
    with pytest.raises(BoundError, match="take cpu or cuda"):
        sol.run(options("--calibrate", "tpu"), [])


def test_the_commands_load_without_torch() -> None:
    code = "import sys, benchmarks.kernels.commands; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent).returncode == 0
