"""Kernels in C++ in real trials: compiled in the sandbox, judged from outside, faster than what they stand for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.kernels import evaluate
from benchmarks.kernels.catalogue.cpu import for_data
from runners.sandbox import Sandbox
from tests.kernel_technique_play import own, prepared, starts
from tests.kernel_trials import Trials, prepare

pytestmark = [pytest.mark.torch, pytest.mark.slow]


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    data = prepared(tmp_path_factory.mktemp("techniques"), "workload.cpu_timed.jsonl")
    for file in ("peaks.json", "manifest.json"):  # as of the small problems
        shutil.copy(prepare(tmp_path_factory.mktemp(file.partition(".")[0])) / file, data)
    with Sandbox.start(6, inside=evaluate.INSIDE, preload=evaluate.PRELOAD, setup_statement=evaluate.SETUP) as box:
        found = Trials(data, box)
        yield found
        found.evaluator.close()


@pytest.mark.parametrize("name", ["rms_norm", "moe_gating", "gqa_decode", "wkv_decay", "swiglu_gate_up"])
def test_a_kernel_in_cpp_wins_its_trial(lane: Trials, name: str, tmp_path: Path) -> None:
    technique = for_data(lane.data)[f"cpp__{name}"]
    after = technique.apply(starts([own(name)]), technique.defaults())
    outcome = lane.run({name: after[f"{name}/solution.py"]}, (name,))
    assert outcome.failure is None, outcome.failure
    assert outcome.score is not None and 0 < outcome.score < 0.9
