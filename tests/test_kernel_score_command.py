"""The headline from stored measurements: eager and now, by scaled and by measured anchors, what is missing as 0."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.kernels.__main__ import main
from benchmarks.kernels.anchors import published, scaled
from benchmarks.kernels.cells import CellTimes
from benchmarks.kernels.measured import Store
from benchmarks.kernels.suite import Line, append
from tests.test_kernel_anchors import measurement, with_figures

pytestmark = pytest.mark.torch


def test_what_was_measured_is_scored_and_what_was_not_counts_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = [with_figures(tmp_path / "p" / name, (0.01, 0.05), (0.02, 0.09)) for name in ("a", "b")]
    for problem in problems:  # as prepared: read, not found out again
        (tmp_path / "p" / problem.name / "definition.json").write_text(json.dumps(definition(problem.name)))
        lines = [{"uuid": f"w{number}", "axes": {"n": 4 * (number + 1)}, "inputs": {"x": {"type": "random"}},
                  "tolerance": {"max_atol": 1e-2, "max_rtol": 1e-2}} for number in range(2)]  # fmt: skip
        (tmp_path / "p" / problem.name / "workload.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
        works = {f"w{number}": {"bytes": 32, "macs": {}} for number in range(2)}
        (tmp_path / "p" / problem.name / "work.json").write_text(json.dumps(works))
    there = scaled(published(problems), "NVIDIA H200", None).figures["a"]
    store = Store(tmp_path / "store.jsonl")
    for uuid, anchor in there.items():
        store.append(measurement("eager", anchor.baseline_ms, uuid, problem="a"))
    times = {"w0": CellTimes(there["w0"].bound_ms, 1.0), "w1": CellTimes(there["w1"].baseline_ms, 1.0)}
    lines = tmp_path / "lines.jsonl"
    append(lines, Line("a", "key", 0.5, times=times))
    append(lines, Line("b", "key", None, "bad_output: wrong"))
    asked = ["score", "--problems", str(tmp_path / "p"), "--store", str(store.path), "--lines", str(lines)]
    assert main([*asked, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["device"] == "NVIDIA H200" and told["problems"] == 2
    eager, now = told["eager"]["scaled"], told["now"]["scaled"]
    assert eager["score"] == pytest.approx(0.25) and (eager["attempted"], eager["anchored"]) == (1, 2)
    assert now["score"] == pytest.approx((1.0 + 0.5) / 4) and now["good"] == 1
    assert told["eager"]["measured"]["score"] == pytest.approx(0.25)  # its own baseline; b has none
    assert told["eager"]["measured"]["anchored"] == 1
    assert main(asked) == 0
    text = capsys.readouterr().out
    assert "eager  scaled    0.250" in text and "now    scaled    0.375" in text


def definition(name: str) -> dict[str, object]:
    tensor = {"shape": ["n"], "dtype": "float32"}
    return {"name": name, "axes": {"n": {"type": "var"}}, "inputs": {"x": tensor}, "outputs": {"y": tensor},
            "reference": "def run(x):\n    return 2 * x\n"}  # fmt: skip


def test_nothing_measured_and_missing_lines_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--store", str(tmp_path / "none")]) == 2
    assert "nothing was measured yet" in capsys.readouterr().err
    store = Store(tmp_path / "store.jsonl")
    store.append(measurement("eager", 1.0))
    assert main(["score", "--store", str(store.path), "--lines", str(tmp_path / "none")]) == 2
    assert "give what `suite --out` wrote" in capsys.readouterr().err
