"""Words that figures and page of a record share."""

from __future__ import annotations

from typing import Any

from research.drawing.scale import MINUS
from research.management.record import Record
from research.validation.records import Relation

ASSEMBLED = "known techniques, assembled"


def label(record: Record) -> str:
    """What kind of gain it is: what the champion stands on decides."""
    steps = record["champion"]["steps"]
    known = sum(step["known"] for step in steps)
    if not steps:
        return "no gain: main stands on the start"
    if known == len(steps):
        return ASSEMBLED
    if not known:
        return "changes of its researchers' own"
    return f"{ASSEMBLED}, with {len(steps) - known} of {len(steps)} changes of its researchers' own"


def relation_words(relation: Relation) -> str:
    """The rank correlation and line of two presets, with their intervals."""
    shown = "foretells" if relation.is_shown else "is not shown to foretell"
    return (
        f"over {relation.techniques} techniques: rank correlation {relation.rank:.2f} "
        f"({relation.rank_low:.2f} to {relation.rank_high:.2f}), slope {relation.slope:.2f} "
        f"({relation.slope_low:.2f} to {relation.slope_high:.2f}); screening {shown} gains at the longer preset"
    )


def percent(share: float | None, places: int = 1) -> str:
    return "" if share is None else f"{100 * share:+.{places}f} %".replace("-", MINUS)


def signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.4f}".replace("-", MINUS)


def between(row: Any) -> str:
    """An interval in brackets, where there is one; `row` has low and high."""
    low, high = row["low"], row["high"]
    return "" if low is None or high is None else f" ({signed(low)} to {signed(high)})"
