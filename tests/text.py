"""A small corpus for tests: deterministic sentences over a small vocabulary, enough to be split."""

from __future__ import annotations

import random
from pathlib import Path

SYLLABLES = [
    "ba",
    "ce",
    "di",
    "fo",
    "gu",
    "ha",
    "je",
    "ki",
    "lo",
    "mu",
    "na",
    "pe",
    "qui",
    "ro",
    "su",
    "ta",
    "ve",
    "wi",
    "xo",
    "zy",
]


def write_corpus(folder: Path, files: int = 120, size: int = 17_000, seed: int = 5) -> None:
    """About 2 MB of text in `files` files: more than a preparation needs at least."""
    random_ = random.Random(seed)
    words = ["".join(random_.choices(SYLLABLES, k=random_.randint(1, 4))) for _ in range(600)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    for number in range(files):
        parts: list[str] = []
        length = 0
        while length < size:
            sentence = " ".join(random_.choices(words, weights, k=random_.randint(4, 14))).capitalize() + ".\n"
            parts.append(sentence)
            length += len(sentence)
        (folder / f"page-{number:03}.txt").write_text("".join(parts), encoding="utf-8")
