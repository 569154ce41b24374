"""Of text that is read more than once, the last pass is a whole one, and hashed tables learn in it alone."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.catalogue import Step
from benchmarks.edits import DoesNotApply
from benchmarks.nanochat.catalogue.gpu import CATALOGUE
from tests import gpu_technique_play as play

pytestmark = pytest.mark.torch

ROWS, PASSES = 4, 2  # of a batch, of a step
A_PASS = 48  # steps
LENGTH = A_PASS * PASSES * ROWS * play.LENGTH  # tokens
TEXT = torch.randint(1, play.VOCABULARY, (LENGTH + 1,), generator=torch.Generator().manual_seed(1)).to(torch.uint16)
AHEAD = 3  # steps that may read what was loaded before the last pass began


class Played:
    """A whole budget of so many steps: where its rows began, and whether tables had learned before each step."""

    def __init__(self, names: list[str], steps: int) -> None:
        self.starts: list[Tensor] = []  # by batch, in the order of reading
        self.learned: list[bool] = []
        tree = CATALOGUE.apply(dict(play.start("modern")), [Step(name, CATALOGUE[name].defaults()) for name in names])
        with play.loaded(play.small_tables(tree)) as modules:
            train, harness, counted = modules["train"], modules["harness"], iter(range(1, steps + 1))
            harness.start_clock = lambda: TEXT  # type: ignore[attr-defined]
            harness.progress = lambda: next(counted) / steps  # type: ignore[attr-defined]
            train.WARM_UP_STEPS, train.STOP_AT = 1, 1.0  # type: ignore[attr-defined]
            train.gc = ModuleType("gc")  # type: ignore[attr-defined]
            train.gc.collect = train.gc.freeze = train.gc.disable = lambda: None
            self.watch(train)
            train.main()

    def watch(self, train: Any) -> None:
        step, next_starts = train.train_step, train.Loader.next_starts

        def train_step(model: nn.Module, optimizer: object, loss: object, batches: object, progress: float) -> Tensor:
            if isinstance(batches, train.Loader):
                tables = [value for name, value in model.named_buffers() if name.endswith("bigrams.weight")]
                self.learned.append(any(bool(table.any()) for table in tables))
            return step(model, optimizer, loss, batches, progress)

        def starts(loader: object) -> Tensor:
            self.starts.append(next_starts(loader))
            return self.starts[-1]

        train.train_step, train.Loader.next_starts = train_step, starts

    def times_read(self, steps: int) -> int:
        """How often the token that comes most often was read in the last so many steps."""
        end = len(self.learned) * PASSES
        starts = torch.cat(self.starts[end - steps * PASSES : end])
        read = torch.zeros(len(TEXT), dtype=torch.int64)
        for start in starts.tolist():
            read[start : start + play.LENGTH] += 1
        return int(read.max())


def test_the_last_steps_read_nothing_twice_where_the_budget_reads_more_than_the_text():
    steps = 3 * A_PASS // 2
    assert Played(["last_pass"], steps).times_read(A_PASS - 2 * AHEAD) == 1
    assert Played([], steps).times_read(A_PASS - 2 * AHEAD) == 2


def test_tables_learn_in_the_last_pass_alone():
    played = Played(["bigram_values"], 3 * A_PASS // 2)
    begins = played.learned.index(True)
    assert 0.5 * A_PASS < begins < 0.55 * A_PASS + AHEAD
    assert all(played.learned[begins:])


def test_tables_learn_from_the_first_steps_on_where_the_budget_reads_less_than_the_text():
    played = Played(["bigram_values"], A_PASS // 2)
    assert played.learned.index(True) <= AHEAD


def test_a_tree_with_tables_has_it():
    sources = CATALOGUE.apply(
        dict(play.start("modern")), [Step("bigram_stream", CATALOGUE["bigram_stream"].defaults())]
    )
    with pytest.raises(DoesNotApply, match="already"):
        CATALOGUE["last_pass"].apply(sources, {"share": 0.9})


def test_tables_take_the_last_pass_that_is_there():
    steps = [Step("last_pass", {"share": 0.9}), Step("bigram_values", CATALOGUE["bigram_values"].defaults())]
    train = CATALOGUE.apply(dict(play.start("modern")), steps)["train.py"]
    assert play.constants(train)["LAST_PASS"] == 0.9
    assert train.count("hold_tables(model, False)") == 1
