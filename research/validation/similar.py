"""How alike two free-form changes are: by what they say and by what they edit. Sets of words, no model.

Words that say the same otherwise are not seen: a paraphrase passes, and what it edits is compared later. Numbers are
told apart: another value is another experiment. Thresholds were chosen on the examples of tests/test_memory_similar.py
and on the techniques of the shipped catalogue, no two of which reach them.
"""

from __future__ import annotations

import re

SAME_WORDS = 0.75  # of two texts: repeated, if their numbers agree
SAME_CODE = 0.9  # of two patches: repeated, if their numbers agree
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


def alike_in_words(one: str, other: str) -> float:
    """Likeness of two hypotheses with their plans; 0 where both name numbers and these differ."""
    mine, theirs = numbers_of(one), numbers_of(other)
    if mine and theirs and mine != theirs:
        return 0.0
    return alike(words_of(one), words_of(other))


def edits_of(patch: str) -> tuple[frozenset[str], tuple[str, ...]]:
    """Shingles of the lines that a unified diff adds and removes, and the numbers of those it adds; comments aside."""
    shingles: set[str] = set()
    numbers: list[str] = []
    for line in patch.splitlines():
        if line[:1] not in ("+", "-") or line.startswith(("+++", "---")):
            continue
        code = line[1:].split("#", 1)[0]
        tokens = TOKEN.findall(code)
        if line[0] == "+":
            numbers += NUMBER.findall(code)
        plain = [line[0], *("0" if NUMBER.fullmatch(token) else token for token in tokens)]
        shingles |= {" ".join(plain[at : at + SHINGLE]) for at in range(max(1, len(plain) - SHINGLE + 1)) if tokens}
    return frozenset(shingles), tuple(sorted(numbers))


def alike_in_code(one: str, other: str) -> float:
    """Likeness of two patches; 0 where they write other numbers."""
    (mine, my_numbers), (theirs, their_numbers) = edits_of(one), edits_of(other)
    return alike(mine, theirs) if my_numbers == their_numbers else 0.0
