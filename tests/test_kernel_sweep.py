"""Measured baselines: a process of its own, a store that goes on, references that fail or end their process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.kernels.__main__ import main
from benchmarks.kernels.measured import PASSED, Store
from benchmarks.kernels.sweep import EAGER, Task, sweep
from tests.kernel_trials import problem

pytestmark = pytest.mark.torch

SIZES = ((256, 2048), (300, 1000), (512, 512), (700, 300))


def laid(folder: Path, name: str, body: str) -> Path:
    (folder / name).mkdir(parents=True)
    for file, text in problem(name, body, SIZES).items():
        (folder / name / file).write_text(text)
    return folder


def test_what_fails_is_told_and_the_next_one_is_measured(tmp_path: Path) -> None:
    laid(tmp_path, "scales", "return torch.stack([row * gain for row in x])")
    laid(tmp_path, "breaks", "raise ValueError('no')")
    laid(tmp_path, "ends", "import os; os._exit(3)")
    tasks = [Task(str(tmp_path / name), name, "256x2048", EAGER) for name in ("ends", "breaks", "scales")]
    rows = list(sweep(tasks, "cpu"))
    assert [(row.problem, row.status) for row in rows[:2]] == [("ends", "RUNTIME_ERROR"), ("breaks", "RUNTIME_ERROR")]
    assert rows[2].status in (PASSED, "TIMEOUT") and (rows[2].latency_ms or 1) > 0
    assert {row.device for row in rows} == {"CPU"} and {row.timing for row in rows} == {"stopwatch"}


def test_a_store_is_continued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "s"
    problems = laid(tmp_path / "problems", "scales", "return torch.stack([row * gain for row in x])")
    asked = ["anchors", "--measure", "cpu", "--problems", str(problems), "--store", str(store), "--json"]
    assert main([*asked, "--seconds", "0"]) == 1
    assert json.loads(capsys.readouterr().out) == {"measured": 0, "passed": 0, "left": 3 + 1, "before": 0}
    assert main([*asked, "--ends"]) == 0
    assert json.loads(capsys.readouterr().out)["measured"] == 3
    assert {row.uuid for row in Store(store).rows()} == {"256x2048", "512x512", "700x300"}
    assert main(asked) == 0
    told = json.loads(capsys.readouterr().out)  # on a busy machine a stopwatch may see nothing of it
    assert told | {"passed": 1} == {"measured": 1, "passed": 1, "left": 0, "before": 3}


def test_a_device_that_is_not_there_and_a_store_without_a_name_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["anchors", "--measure", "cpu"]) == 2
    assert "name the file by --store" in capsys.readouterr().err
    if not Path("/dev/nvidia0").exists():
        assert main(["anchors", "--measure", "cuda", "--store", str(tmp_path / "s")]) == 2
        assert "GPU" in capsys.readouterr().err
