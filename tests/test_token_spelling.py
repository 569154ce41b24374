"""What a candidate is told of its tokens, and real trials of techniques that use it or bring files of their own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.catalogue import Step
from benchmarks.contract import load
from benchmarks.nanochat import evaluate
from benchmarks.nanochat.catalogue.gpu import CATALOGUE
from benchmarks.nanochat.tokens.tokenizer import spellings
from runners.sandbox import Sandbox
from tests import token_play as play

pytestmark = pytest.mark.torch
LONG = "ab" * 10


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spelled") / "data"
    play.write_data(folder)
    names = ["<|bos|>", "a", "Ġof", LONG, *(f"t{number}" for number in range(4, play.VOCABULARY))]
    vocabulary = {name: number for number, name in enumerate(names)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    return folder


def test_spellings_are_the_bytes_of_each_token_cut_and_filled(data: Path, tmp_path: Path):
    known = spellings(data)
    assert known.shape == (play.VOCABULARY, 16) and known.dtype == np.uint8
    assert not known[0].any()
    assert bytes(known[2]).rstrip(b"\0") == b" of"
    assert bytes(known[3]) == LONG.encode()[:16]
    assert spellings(tmp_path).shape == (0, 16)


def test_a_candidate_knows_the_bytes_of_its_tokens(data: Path, box: Sandbox, evaluator: evaluate.Evaluator):
    seen: dict[str, float] = {}

    def sink(name: str, steps: object, values: object) -> None:
        seen[name] = float(np.asarray(values)[0])

    train = "import harness\nharness.start_clock()\nspelled = harness.token_bytes\n"
    train += "harness.log(0, first=spelled[2, 1], rows=len(spelled), end=spelled[3, 15])\n"
    task = play.task({"train.py": train + "harness.submit({})\n", "model.py": "def build(): ...\n"}, data)
    evaluator.run(task, box, sink)
    assert seen == {"first": ord("o"), "rows": play.VOCABULARY, "end": ord("b")}


@pytest.mark.slow
@pytest.mark.parametrize("names", [("bigram_values", "byte_boundary"), ("trigram_values", "moving_average")])
@pytest.mark.parametrize("start", ["modern", "vanilla"])
def test_techniques_pass_a_real_trial(
    start: str, names: tuple[str, ...], data: Path, box: Sandbox, evaluator: evaluate.Evaluator
):
    sources = load("nanochat").start_sources(start, "gpu-tiny")
    steps = [Step(name, CATALOGUE[name].defaults() | {"rows": 2**16, "channels": 16}) for name in names]
    task = play.task(CATALOGUE.apply(sources, steps), data)
    outcome = evaluator.run(task, box, lambda *_: None)
    assert outcome.failure is None, outcome.failure
    assert outcome.score is not None and 0 < outcome.score < 9
