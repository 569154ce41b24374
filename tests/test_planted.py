"""What planted campaigns rest on: notes that change nothing, a hidden clock that adds up, sizes where they belong."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import contract
from benchmarks.tar import pack
from tests.bench import planted
from tests.bench.benchmarks.planted import evaluate
from tests.bench.benchmarks.planted.catalogue import CATALOGUE

CURVE = planted.Curve([(0.0, 0.0), (math.log(1.5), 0.10), (math.log(2.5), 0.18)], sigma=0.01, seconds=0)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr(contract, "FOLDER", Path(planted.__file__).parent / "benchmarks")
    files = contract.load("planted").start_files("vanilla", "short")
    return {path: content.decode() for path, content in files.items()}


@pytest.fixture
def hidden() -> Iterator[None]:
    evaluate.planted_file().write_text(json.dumps({"2": 1.5, "5": 2.0}))
    yield
    evaluate.planted_file().unlink()


def noted(sources: dict[str, str], *numbers: int) -> dict[str, str]:
    for number in numbers:
        sources = CATALOGUE["note"].apply(sources, {"number": number})
    return sources


def test_a_note_leaves_the_program_as_it_is(start: dict[str, str]) -> None:
    program = ast.dump(ast.parse(start["train.py"]))
    assert ast.dump(ast.parse(noted(start, 2)["train.py"])) == program
    renamed = noted(start, 2, 3, 7)["train.py"]
    assert "LOG_EVERY_7 = 20" in renamed and "LOG_EVERY_3" not in renamed
    assert ast.dump(ast.parse(renamed.replace("LOG_EVERY_7", "LOG_EVERY"))) == program


def test_marked_trees_train_longer_and_factors_multiply(start: dict[str, str], hidden: None) -> None:
    def factor(*numbers: int) -> float:
        tree = pack({path: text.encode() for path, text in noted(start, *numbers).items()})
        assert evaluate.notes_in(tree) == list(numbers)
        return evaluate.factor_of(evaluate.notes_in(tree))

    assert [factor(), factor(1, 3), factor(2), factor(1, 2, 5)] == [1.0, 1.0, 1.5, 3.0]


def test_the_curve_goes_both_ways_and_on_beyond_what_was_measured() -> None:
    for factor in (1.2, 1.5, 2.0, 2.5, 4.0):
        assert CURVE.factor(CURVE.gain(factor)) == pytest.approx(factor)
    assert CURVE.gain(1.0) == 0.0 and CURVE.gain(1.5) == pytest.approx(0.10)
    assert CURVE.gain(4.0) > CURVE.gain(2.5) == pytest.approx(0.18)


def test_each_planted_gain_has_its_size_on_top_of_those_before_it() -> None:
    hidden = planted.plant(CURVE, (2.0, 4.0, 2.0), 40)
    assert len(hidden) == 3 and all(2 <= int(note) <= 40 for note in hidden)
    below = 1.0
    for size, factor in zip((2.0, 4.0, 2.0), hidden.values(), strict=True):
        assert CURVE.gain(below * factor) - CURVE.gain(below) == pytest.approx(size * CURVE.sigma)
        below *= factor
