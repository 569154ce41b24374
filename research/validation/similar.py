"""How alike two free-form changes are: by what is said of them and by what they edit. Sets of words, no model.

Refusing wrongly loses an idea; letting a repetition through costs its implementation, after which its code is compared
too. So the thresholds lie above what different changes reach: those on the examples of `tests/test_memory_similar.py`,
and every two techniques of the shipped catalogue (at most 0.74 in words; 0.98 in code, so code alone decides nothing).
A paraphrase in other words is not seen.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SAME_WORDS = 0.88  # of two hypotheses with their plans
LIKE_WORDS, LIKE_CODE = 0.6, 0.9  # both together
FEWEST = 4  # words, or shingles, below which nothing is said
STEM = 6  # letters of a word that count: `lowering`, `lowered`
SHINGLE = 3
FILLING_TEXT = """
a an and are as at be been but by can for from has have if in instead into is it its more not of on or other our should
so than that the their them then there these this to try use used uses using was we which while will with would change
changes improve improves improved lower lowers lowered loss score better metric
"""
FILLING = frozenset(FILLING_TEXT.split())
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?")
TOKEN = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?|[A-Za-z_]\w*|[^\s\w]")


def words_of(text: str) -> frozenset[str]:
    """The words that carry a text, cut to their stems; without numbers."""
    found = re.findall(r"[a-z]+", text.lower().replace("_", " "))
    return frozenset(word[:STEM] for word in found if word not in FILLING and len(word) > 1)


def numbers_of(text: str) -> frozenset[float]:
    return frozenset(float(number) for number in NUMBER.findall(text.lower()))


def alike(one: frozenset[str], other: frozenset[str]) -> float:
    """Twice what both have over what each has (Dice): 1 the same, 0 nothing in common."""
    if min(len(one), len(other)) < FEWEST:
        return 0.0
    return 2 * len(one & other) / (len(one) + len(other))


@dataclass(frozen=True)
class Said:
    """A change as its proposer says it, and as it was made: `patch` is empty until then."""

    words: str
    patch: str = ""


def repeats(one: Said, other: Said) -> float:
    """How alike two free-form changes are, where one repeats the other; else 0.

    Other numbers make another experiment. With the same: nearly the same words are enough; or the same code, comments
    and spaces aside; or much the same code of which much the same is said. The last needs both: a patch that writes an
    optimiser out is 98 % the patch that writes out another.
    """
    words = alike_in_words(one.words, other.words)
    if not (one.patch and other.patch):
        return words if words >= SAME_WORDS else 0.0
    code = alike_in_code(one.patch, other.patch)
    if code == 1.0 or (code and words >= SAME_WORDS):
        return max(code, words)
    return (code + words) / 2 if code >= LIKE_CODE and words >= LIKE_WORDS else 0.0


def alike_in_words(one: str, other: str) -> float:
    """Likeness of two texts; 0 where both name numbers and these differ."""
    mine, theirs = numbers_of(one), numbers_of(other)
    if mine and theirs and mine != theirs:
        return 0.0
    return alike(words_of(one), words_of(other))


def alike_in_code(one: str, other: str) -> float:
    """Likeness of what two patches edit; 0 where they write other numbers."""
    (mine, my_numbers), (theirs, their_numbers) = edits_of(one), edits_of(other)
    if my_numbers != their_numbers:
        return 0.0
    return 1.0 if mine and mine == theirs else min(alike(mine, theirs), 0.99)


def edits_of(patch: str) -> tuple[frozenset[str], tuple[str, ...]]:
    """Shingles of the lines that a unified diff adds and removes, and the numbers of those it adds; comments aside."""
    shingles: set[str] = set()
    numbers: list[str] = []
    for line in patch.splitlines():
        if line[:1] not in ("+", "-") or line.startswith(("+++", "---")):
            continue
        tokens = TOKEN.findall(line[1:].split("#", 1)[0])
        if line[0] == "+":
            numbers += [token for token in tokens if NUMBER.fullmatch(token)]
        marked = [line[0], *tokens]
        shingles |= {" ".join(marked[at : at + SHINGLE]) for at in range(max(1, len(tokens) - 1)) if tokens}
    return frozenset(shingles), tuple(sorted(numbers))
