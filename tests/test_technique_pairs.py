"""Techniques stack: one after another, in either order, both edits stay and the tree trains."""

from __future__ import annotations

import random
import re
import subprocess
from collections import Counter
from functools import cache
from itertools import permutations
from pathlib import Path

import pytest
import torch

from benchmarks.catalogue import Sources
from benchmarks.edits import DoesNotApply
from benchmarks.nanochat.catalogue.cpu import CATALOGUE
from tests import technique_play as play

pytestmark = pytest.mark.torch

SHARE = 0.9  # of the pairs that do not exclude each other by nature
THREE_STEPS = (0.3, 0.6, 1.0)  # the clock after each: early, middle, late
PAIRS = [pair for pair in permutations(CATALOGUE, 2) if not CATALOGUE.clash(pair[1], pair[:1])]
Pair = tuple[str, str]


def sample(count: int) -> list[Pair]:
    """The same pairs each time, from all over the catalogue."""
    return random.Random(1).sample(PAIRS, count)


@cache
def alone(name: str) -> Sources:
    return play.changed(CATALOGUE[name])


def stacked(first: str, second: str) -> Sources:
    return CATALOGUE[second].apply(dict(alone(first)), CATALOGUE[second].defaults())


def lines(sources: Sources) -> Counter[str]:
    return Counter(f"{name}: {line.strip()}" for name, text in sources.items() for line in text.splitlines())


@cache
def added(name: str) -> list[str]:
    """The lines of a technique, its constants among them."""
    return list(lines(alone(name)) - lines(play.START))


def lost(name: str, tree: Sources) -> list[str]:
    """What a technique adds and a tree does not hold, be it in a line that another technique made longer."""
    there = lines(tree)
    missing = [line for line in added(name) if line not in there]
    words = [set(re.findall(r"\w+", line)) for line in there] if missing else []
    return [line for line in missing if not any(set(re.findall(r"\w+", line)) <= longer for longer in words)]


def refused(pairs: list[Pair], train: bool = False) -> list[str]:
    """One line for each pair that does not stack."""
    reasons = []
    for pair in pairs:
        try:
            tree = stacked(*pair)
        except DoesNotApply as error:
            reasons.append(f"{pair}: {error}")
            continue
        gone = [line for name in pair for line in lost(name, tree)]
        if gone:
            reasons.append(f"{pair}: lost {gone[0]!r}")
        elif train and (fault := fault_of(tree)):
            reasons.append(f"{pair}: {fault}")
    return reasons


def fault_of(tree: Sources) -> str:
    """What goes wrong in three steps of training and a score by the submitted weights; empty if nothing."""
    try:
        run = play.run(tree)
    except (
        ArithmeticError,
        AttributeError,
        IndexError,
        KeyError,
        NameError,
        TypeError,
        ValueError,
        RuntimeError,
    ) as error:
        return f"{type(error).__name__} {error}"
    finite = run.scores.isfinite().all() and torch.tensor(run.losses).isfinite().all()
    return "" if finite and len(run.losses) >= 3 else f"losses {run.losses}"


def assert_most_stack(pairs: list[Pair], reasons: list[str]) -> None:
    share = 1 - len(reasons) / len(pairs)
    print(f"{share:.1%} of {len(pairs)} pairs stack", *reasons, sep="\n")
    assert share >= SHARE, "\n".join(reasons)


def test_both_edits_of_a_pair_stay():
    pairs = sample(160)
    assert_most_stack(pairs, refused(pairs))


def test_stacked_pairs_train(monkeypatch):
    monkeypatch.setattr(play, "CLOCK", THREE_STEPS)
    pairs = sample(30)
    assert_most_stack(pairs, refused(pairs, train=True))


def test_a_clean_three_way_merge_is_the_stack(tmp_path):
    """Where git merges two techniques without a conflict, the lines are those of one applied after the other."""
    clean = 0
    for pair in sample(24):
        merged = {name: merge(tmp_path, name, *pair) for name in play.START}
        if all(merged.values()) and (tree := {name: text or "" for name, text in merged.items()}):
            clean += 1
            assert lines(tree) == lines(stacked(*pair)), pair
            assert not fault_of(tree), pair
    assert clean >= 6  # the rest is stacked by applying techniques again


def merge(folder: Path, name: str, ours: str, theirs: str) -> str | None:
    """git's three-way merge of one file; None on a conflict."""
    for part, text in (("ours", alone(ours)[name]), ("base", play.START[name]), ("theirs", alone(theirs)[name])):
        (folder / part).write_text(text)
    command = ["git", "merge-file", "--stdout", "ours", "base", "theirs"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("first", CATALOGUE)
def test_all_pairs_train(first: str, monkeypatch):
    monkeypatch.setattr(play, "CLOCK", THREE_STEPS)
    pairs = [pair for pair in PAIRS if pair[0] == first]
    assert_most_stack(pairs, refused(pairs, train=True))
