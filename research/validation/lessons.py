"""What a lesson is worth and how long it holds: confidence, pooling, what a discard assumes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from research.validation.wire import Record

PRIOR_PAIRS = 8  # a verdict that stopped before it could tell is believed like so many pairs of nothing seen before
MOST = 0.99  # of what was measured; only a person's word and a conflict of git are certain
BY_KIND = {"failure": 0.9, "invalid": 0.9, "rejected": 1.0, "conflict": 1.0}
MACHINE_FAILURE = 0.6  # time, memory, disk: another machine, or a quieter one, may bring it through
IMPORTED = 0.5  # the share of its confidence that a lesson from elsewhere keeps
MOVED = 3  # techniques by which a base may differ before what was discarded on it is worth another look
QUIETER = 0.5  # of the noise then: what could not be seen may be seen now


def confidence(
    kind: str, e_for: float = 1.0, e_against: float = 1.0, pairs: int = 0, level: float | None = None
) -> float:
    """How far what a lesson says is to be believed, 0 to 1.

    A gain, a near miss and a harm: their e-value as odds, e / (1 + e), so 0.95 at e = 20 and 0.75 at e = 3.
    No gain: 1 - `level` where the interval excluded a worthwhile gain (`level` is the chance that one end of it is
    wrong); where it stopped before it could tell (`level` None), pairs / (pairs + 8).
    """
    if kind in BY_KIND:
        return BY_KIND[kind]
    if kind in ("gain", "near_miss"):
        return min(MOST, e_for / (1 + e_for)) if math.isfinite(e_for) else MOST
    if kind == "harm":
        return min(MOST, e_against / (1 + e_against)) if math.isfinite(e_against) else MOST
    return 1 - level if level is not None else pairs / (pairs + PRIOR_PAIRS)


@dataclass(frozen=True)
class Measured:
    """What one lesson measured. `effect` and `error` are relative to the baseline's score."""

    kind: str
    effect: float | None
    error: float | None
    pairs: int
    confidence: float


def pool(one: Measured, other: Measured) -> Measured:
    """Two measurements of the same change on the same base as one: by inverse variance, pairs added.

    The kind is that of the one with more confidence. Confidences of one kind add like independent witnesses,
    1 - (1 - a)(1 - b); contrary ones leave their difference.
    """
    stronger, weaker = sorted((one, other), key=lambda each: (each.confidence, each.pairs), reverse=True)
    if stronger.kind == weaker.kind:
        believed = min(MOST, 1 - (1 - one.confidence) * (1 - other.confidence))
    else:
        believed = stronger.confidence - weaker.confidence
    effect, error = _mean(one, other)
    return Measured(stronger.kind, effect, error, one.pairs + other.pairs, believed)


def _mean(one: Measured, other: Measured) -> tuple[float | None, float | None]:
    if one.effect is None or not one.error:
        return (other.effect, other.error) if other.effect is not None else (one.effect, one.error)
    if other.effect is None or not other.error:
        return one.effect, one.error
    weights = one.error**-2, other.error**-2
    mean = (weights[0] * one.effect + weights[1] * other.effect) / sum(weights)
    return mean, sum(weights) ** -0.5


GOOD, BAD = frozenset({"gain", "near_miss"}), frozenset({"harm", "no_gain", "failure", "invalid"})


def supersedes(new: Measured, old: Measured) -> str:
    """Why a later lesson of the same change, on another base, stands in front of an earlier one. Empty: it does not.

    `contrary`: one says gain and the other none; both are shown, the later one first. `stronger`: the same, with at
    least as much confidence.
    """
    if (new.kind in GOOD and old.kind in BAD) or (new.kind in BAD and old.kind in GOOD):
        return "contrary" if new.confidence >= 0.5 else ""
    same = (new.kind in GOOD and old.kind in GOOD) or (new.kind in BAD and old.kind in BAD)
    return "stronger" if same and new.confidence >= old.confidence else ""


@dataclass(frozen=True)
class Assumption(Record):
    """What a discard rests on. While all of it holds, the change is not tried again."""

    preset: str
    recipe: tuple[str, ...]  # techniques of the base
    techniques: tuple[str, ...]  # of the change itself
    labels: tuple[str, ...] = ()  # tags of the change: what it is related to
    sigma: float | None = None  # relative noise of a pair, where noise may have hidden a gain
    machine_class: str = ""  # where the class of machine may be why it failed

    def words(self) -> str:
        """What would make it worth another look."""
        said = [f"the base differs by {MOVED} techniques or more"]
        if self.labels:
            said.append(f"one of {', '.join(self.labels)} comes or goes")
        if self.sigma is not None:
            said.append(f"the noise of a pair falls below {QUIETER * self.sigma:.2%}")
        if self.machine_class:
            said.append("another class of machine measures")
        return "; or ".join(said)


@dataclass(frozen=True)
class Standing:
    """What a head and its lab are like now."""

    preset: str
    recipe: tuple[str, ...]
    sigma: float | None
    machine_class: str


def changed(assumed: Assumption, now: Standing, tags: Mapping[str, AbstractSet[str]]) -> str:
    """Why a discard no longer holds for a head, in a few words. Empty: it still does.

    `tags`: what each technique is related to. A technique counts as related where it shares a tag with the change.
    """
    if assumed.preset != now.preset:
        return f"it was learned at preset {assumed.preset}, not {now.preset}"
    own = set(assumed.techniques)
    then, there = set(assumed.recipe) - own, set(now.recipe) - own
    labels = set(assumed.labels)
    related = {name for name in then ^ there if labels & tags.get(name, frozenset())}
    if gone := sorted(related & then):
        return f"{', '.join(gone)}, beside which it was measured, is gone"
    if come := sorted(related & there):
        return f"{', '.join(come)} is in the code now"
    if len(then ^ there) >= MOVED:
        return f"the code has moved by {len(then ^ there)} techniques"
    if assumed.sigma is not None and now.sigma is not None and now.sigma <= QUIETER * assumed.sigma:
        return f"the noise of a pair fell from {assumed.sigma:.2%} to {now.sigma:.2%}"
    if assumed.machine_class and now.machine_class and assumed.machine_class != now.machine_class:
        return f"it failed on {assumed.machine_class}, and this is {now.machine_class}"
    return ""
