"""A judge without the guards named by its first argument. A program of its own, started by guards.py beside it."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from benchmarks.nanochat import judge  # noqa: E402


def as_it_comes(scores: judge.Floats) -> judge.Floats:
    """Scores taken for log-probabilities."""
    return scores


def unchecked(scores: judge.Floats) -> judge.Floats:
    scores -= scores.max(axis=-1, keepdims=True)
    scores -= np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    return scores


def of_what_is_a_number(sheet: judge.Sheet) -> float:
    return float(np.nanmean(sheet.losses.astype(np.float64)) / math.log(2))


def main() -> None:
    removed = frozenset(sys.argv.pop(1).split(","))
    np.seterr(all="ignore")
    if "normalised_by_judge" in removed:
        judge.log_softmax = as_it_comes
    if "finite_scores" in removed:
        judge.log_softmax = unchecked
        judge.Sheet.bits_per_byte = property(of_what_is_a_number)  # type: ignore[assignment]
    judge.main()


if __name__ == "__main__":
    main()
