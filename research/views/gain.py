"""A verdict's gain as a share of the baseline's score, with how sure it is: one reading for every table."""

from __future__ import annotations

import math
from dataclasses import dataclass

from research.models import Verdict
from research.validation.effects import spread

NORMAL_95 = 1.96


@dataclass(frozen=True)
class Gain:
    """`mean` and `half` are shares of the baseline's mean score; positive is better in both directions."""

    mean: float
    half: float | None  # half the 95 % interval
    pairs: int
    is_confirmed: bool  # from confirm pairs alone, the interval valid at every look

    @property
    def low(self) -> float:
        return self.mean - (self.half or 0)

    @property
    def high(self) -> float:
        return self.mean + (self.half or 0)

    @property
    def why(self) -> str:
        """What the numbers rest on, for a title."""
        pairs = f"{self.pairs} pair{'s' if self.pairs != 1 else ''}"
        if self.is_confirmed:
            return f"95 % interval, valid at every look, over {pairs} of the confirm stage"
        return f"{pairs} of screening: no evidence yet; ± about 95 %, from the noise floor or the pairs' spread"


def gain_of(verdict: Verdict) -> Gain | None:
    """The gain over the baseline. None where no pair has two scores.

    From confirm pairs alone where there are any: those before them were used to choose, so their mean flatters.
    """
    pairs = verdict.evidence.get("pairs", [])
    confirm = [pair for pair in pairs if pair["stage"] == "confirm"]
    chosen = confirm or pairs
    level = abs(sum(pair["baseline"] for pair in chosen) / len(chosen)) if chosen else 0.0
    if not level:
        return None
    if confirm and verdict.effect is not None:
        half = None if verdict.low is None or verdict.high is None else (verdict.high - verdict.low) / 2 / level
        return Gain(verdict.effect / level, half, len(confirm), True)
    if verdict.relative is None:
        return None
    screening = verdict.evidence.get("screening")
    noise = screening["noise"] if screening else verdict.evidence.get("noise")  # that of the preset it was measured at
    half = _half([pair["baseline"] - pair["candidate"] for pair in chosen], noise) if noise else None
    return Gain(verdict.relative, half and half / level, len(chosen), False)


def _half(gains: list[float], noise: dict[str, float]) -> float:
    """Half of about 95 % of a mean gain, in metric units; the floor is the least that a pair's noise can be."""
    return NORMAL_95 * max(noise["sigma_pair"], spread(gains)) / math.sqrt(len(gains))
