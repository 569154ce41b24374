"""Techniques of the GPU lane stack: one after another, in either order, both edits stay and the tree trains."""

from __future__ import annotations

import random
from itertools import permutations

import pytest
import torch

from benchmarks.catalogue import Sources, Step
from benchmarks.edits import DoesNotApply
from benchmarks.nanochat.catalogue.gpu import CATALOGUE
from tests import gpu_technique_play as play
from tests.test_gpu_techniques import applies

pytestmark = pytest.mark.torch

SHARE = 0.95  # of the pairs that do not exclude each other by nature
STRONGEST = ("batch_tokens", "bigram_values", "trigram_values", "embedding_rate", "warmdown", "induction")
CHAIN = ("batch_tokens", "muon", "rope", "table_rate", "value_embeddings", "relu_squared", "qk_norm", "logit_softcap")
CHAIN += (
    "zero_init",
    "first_sizes",
    "embedding_skip",
    "warmdown",
    "head_apart",
    "rms_norm",
    "bias_free",
    "bigram_values",
)
Pair = tuple[str, str]


def pairs(start: str) -> list[Pair]:
    """Ordered pairs that may stand beside each other and need nothing else."""
    alone = [name for name in applies(start) if not CATALOGUE[name].requires]  # a second for each start
    return [pair for pair in permutations(alone, 2) if not CATALOGUE.clash(pair[1], pair[:1])]


def sample(start: str, count: int) -> list[Pair]:
    """The same pairs each time, from all over the catalogue."""
    return random.Random(1).sample(pairs(start), count)


def stacked(start: str, names: tuple[str, ...]) -> Sources:
    steps = [play.steps_of(CATALOGUE[name])[-1] for name in names]
    return play.small_tables(CATALOGUE.apply(dict(play.start(start)), steps))


def refused(start: str, chosen: list[Pair]) -> list[str]:
    reasons = []
    for pair in chosen:
        try:
            stacked(start, pair)
        except DoesNotApply as error:
            if "stand so already" not in str(error):  # two that set one constant: the second is the one in force
                reasons.append(f"{pair}: {error}")
    return reasons


def trains(sources: Sources) -> None:
    run = play.run(sources)
    assert run.losses and torch.tensor(run.losses).isfinite().all() and run.scores.isfinite().all()


@pytest.mark.parametrize(
    ("start", "count"),
    [("modern", 15), *(pytest.param(start, 300, marks=pytest.mark.slow) for start in play.STARTS)],
)
def test_nearly_all_pairs_stack(start: str, count: int):
    chosen = sample(start, count)
    reasons = refused(start, chosen)
    assert len(reasons) <= (1 - SHARE) * len(chosen), "\n".join(reasons)


def test_the_strongest_stack_in_either_order_and_train():
    for names in (STRONGEST, STRONGEST[::-1]):
        trains(stacked("modern", names))


def test_a_chain_takes_vanilla_toward_modern():
    for names in (CHAIN, CHAIN[::-1]):
        trains(stacked("vanilla", names))


@pytest.mark.slow
@pytest.mark.parametrize("start", ["modern", "vanilla"])
def test_pairs_train(start: str):
    for pair in sample(start, 60):
        try:
            sources = stacked(start, pair)
        except DoesNotApply:
            continue
        trains(sources)


def test_a_recipe_is_applied_step_by_step():
    steps = [Step(name, CATALOGUE[name].defaults()) for name in ("bigram_values", "rowwise_moment", "table_warmdown")]
    tree = CATALOGUE.apply(dict(play.STARTS["modern"]), steps)
    assert {"tables.py", "row_update.py"} <= tree.keys() and "TABLE_WARMDOWN" in tree["train.py"]
