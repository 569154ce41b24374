"""Whether the verdicts of a record follow from the evidence in it, by the rule in it."""

from __future__ import annotations

import math
from typing import Any

from research.management.record import Record
from research.validation import rules
from research.validation.outcomes import Verdict
from research.validation.records import Evidence, Rule

STOPPED = "inconclusive"  # the one verdict that a spent budget or lost pairs may bring before the rule asks for it


def broken(record: Record) -> list[int]:
    """The numbers of the experiments whose verdict the rule does not reach on that evidence; none in a sound record."""
    return [row["number"] for row in record["verdicts"] if not follows(row, record["rule"])]


def follows(row: dict[str, Any], rule: dict[str, Any]) -> bool:
    evidence, own = Evidence.from_json(row["evidence"]), Rule.from_json(row["rule"] or rule)
    decide = (
        rules.decide if row["purpose"] == "compare" else rules.settle
    )  # what was asked for is read once, at its end
    decision = decide(evidence, own)
    if not isinstance(decision, Verdict):
        return bool(row["kind"] == STOPPED)
    if str(decision.kind) != row["kind"] or decision.pairs != row["pairs"]:
        return False
    return all(_same(getattr(decision, name), row[name]) for name in ("effect", "low", "high", "e_value"))


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-12) or one > 1e299 < other
