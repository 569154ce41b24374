"""When one free-form change repeats another. The examples on which the thresholds were chosen."""

from __future__ import annotations

from itertools import combinations

import pytest

from benchmarks.contract import load
from research.validation.similar import SAME_WORDS, Said, alike_in_code, alike_in_words, repeats

REPEATED = [
    (
        "Warm the learning rate up over the first 10 % of the steps instead of starting at full rate. Multiply the "
        "rate by step / (0.1 * steps) until it reaches one.",
        "Multiply the rate by step / (0.1 * steps) until it reaches one: warming the learning rate up over the first "
        "10 % of the steps instead of starting at full rate.",
    ),
    (
        "Replace ReLU in the MLP with squared ReLU: a sparser activation learns faster at this size.",
        "Squared ReLU in place of ReLU in the MLP, a sparser activation, learns faster at this size.",
    ),
    (
        "Tie the input and output embeddings; fewer parameters to train in a short budget.",
        "Tied input and output embeddings: fewer parameters to train in so short a budget.",
    ),
    (
        "Use a larger batch late in training: double it after 60 % of the budget.",
        "Double the batch size after 60 % of the budget; a larger batch late in training.",
    ),
]
OTHER = [
    (
        "Clip gradients at norm 1.0 to keep early steps stable.",
        "Clip gradients at norm 0.3 to keep early steps stable.",
    ),
    (
        "Replace ReLU in the MLP with squared ReLU: a sparser activation learns faster at this size.",
        "Replace ReLU in the MLP with GELU: a smoother activation learns faster at this size.",
    ),
    (
        "Warm the learning rate up over the first 10 % of the steps.",
        "Decay the learning rate to zero over the last 10 % of the steps.",
    ),
    (
        "Tie the input and output embeddings; fewer parameters to train.",
        "Untie the input and output embeddings; more parameters to train.",
    ),
    (
        "Initialise the output projections of attention and MLP to zero.",
        "Initialise the output projection of attention to zero and scale the MLP by depth.",
    ),
]
ADDED = (
    "--- a/train.py\n+++ b/train.py\n@@ -1,2 +1,3 @@\n rate = 0.1\n-step(rate)\n+rate = rate * warm\n+step(rate, 0.9)\n"
)


@pytest.mark.parametrize(("one", "other"), REPEATED)
def test_the_same_in_nearly_the_same_words_is_a_repetition(one: str, other: str) -> None:
    assert repeats(Said(one), Said(other)) >= SAME_WORDS


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_another_value_or_another_thing_is_none(one: str, other: str) -> None:
    assert repeats(Said(one), Said(other)) == 0.0


def test_no_two_techniques_of_the_catalogue_repeat_each_other() -> None:
    sentences = [technique.hypothesis for technique in load("nanochat").load_catalogue("cpu").CATALOGUE.values()]
    worst = max(alike_in_words(one, other) for one, other in combinations(sentences, 2))
    assert 0.5 < worst < 0.8, worst


def test_the_same_code_is_known_whatever_is_said_of_it() -> None:
    commented = ADDED.replace("rate * warm", "rate  *  warm  # slowly at first")
    assert repeats(Said("Warm up", ADDED), Said("Something else entirely", commented)) == 1.0


def test_other_numbers_or_another_order_are_other_code() -> None:
    assert alike_in_code(ADDED, ADDED.replace("0.9", "0.95")) == 0.0
    swapped = ADDED.replace("step(rate, 0.9)", "step(0.9, rate)")
    assert 0 < alike_in_code(ADDED, swapped) < 1 and repeats(Said("a", ADDED), Said("b", swapped)) == 0.0


def test_much_the_same_code_repeats_only_where_much_the_same_is_said() -> None:
    body = "".join(f"+value_{number} = moment_{number} + gradient_{number}\n" for number in range(30))
    one, other = f"{body}+update = sign(moment)\n", f"{body}+update = root(moment)\n"
    said = "Keep a moment of every gradient and update by the sign of it"
    assert repeats(Said(said, one), Said(f"{said}, rooted and averaged", other)) > 0.6
    assert repeats(Said(said, one), Said("Nesterov momentum looks ahead before each step", other)) == 0.0
