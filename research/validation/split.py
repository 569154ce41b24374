"""A gain taken apart: how much comes from more steps in the same budget, how much from a better model at equal steps.

Read off the curves that both arms of a pair logged. The programs under test write these, so this explains a verdict and
is no evidence. Both arms are read at the smaller step count of the pair: what separates them there is modelling, what
the longer arm gains after it is throughput. Where the schedule of an arm ends with its budget, the arm with more steps
is read before its schedule has ended, so its modelling part comes out too small rather than too large.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING

from research.validation.records import Direction

if TYPE_CHECKING:  # numpy is imported where arrays are made
    import numpy as np
    from numpy.typing import NDArray

WINDOW = 0.2  # of the shared steps: one logged point is one batch, and batches differ far more than the arms do


@dataclass(frozen=True)
class Curve:
    """One metric of one trial as it was logged: steps (n,) rising and values (n,)."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class CurvePair:
    baseline: Curve
    candidate: Curve


@dataclass(frozen=True)
class Part:
    """A mean over pairs in the unit of the curve, with its standard error (None for a single pair)."""

    mean: float
    error: float | None


@dataclass(frozen=True)
class Split:
    """total = modelling + throughput, positive is better. Steps are medians of the last logged one."""

    pairs: int
    total: Part
    modelling: Part
    throughput: Part
    baseline_steps: float
    candidate_steps: float


def split_gain(pairs: Sequence[CurvePair], direction: Direction) -> Split | None:
    """The parts over all pairs whose curves can be read; None where none can."""
    read = [parts for pair in pairs if (parts := _parts(pair, direction)) is not None]
    if not read:
        return None
    totals, modelling = [total for total, _, _, _ in read], [model for _, model, _, _ in read]
    return Split(
        pairs=len(read),
        total=_part(totals),
        modelling=_part(modelling),
        throughput=_part([total - model for total, model in zip(totals, modelling, strict=True)]),
        baseline_steps=median(steps for _, _, steps, _ in read),
        candidate_steps=median(steps for _, _, _, steps in read),
    )


def _parts(pair: CurvePair, direction: Direction) -> tuple[float, float, int, int] | None:
    """(total, modelling, last step of the baseline, of the candidate); None where a curve is empty or too short."""
    base, cand = _finite(pair.baseline), _finite(pair.candidate)
    if not len(base.steps) or not len(cand.steps):
        return None
    ends = int(base.steps[-1]), int(cand.steps[-1])
    shared = min(ends)
    width = WINDOW * shared
    levels = [_level(curve, at, width) for at in (shared, None) for curve in (base, cand)]
    if any(level is None for level in levels):
        return None
    base_at, cand_at, base_end, cand_end = (level for level in levels if level is not None)
    modelling = _at_equal_steps(base, cand, shared, width, direction)
    if modelling is None:
        modelling = direction.gain(base_at, cand_at)
    total = modelling if ends[0] == ends[1] else direction.gain(base_end, cand_end)
    return total, modelling, *ends


def _at_equal_steps(base: Curve, cand: Curve, shared: int, width: float, direction: Direction) -> float | None:
    """The mean difference at the steps that both logged: the same seed feeds both the same batches there."""
    import numpy as np

    steps, first, second = np.intersect1d(base.steps, cand.steps, return_indices=True)
    inside = (steps > shared - width) & (steps <= shared)
    if not inside.any():
        return None
    return direction.gain(float(base.values[first][inside].mean()), float(cand.values[second][inside].mean()))


def _level(curve: Curve, at: int | None, width: float) -> float | None:
    """The mean of the curve over the steps up to `at` (its end): None where it logged nothing there."""
    end = int(curve.steps[-1]) if at is None else at
    inside = (curve.steps > end - width) & (curve.steps <= end)
    return float(curve.values[inside].mean()) if inside.any() else None


def _finite(curve: Curve) -> Curve:
    import numpy as np

    order = np.argsort(curve.steps, kind="stable")
    steps, values = curve.steps[order], curve.values[order]
    keep = np.isfinite(values)
    return Curve(steps[keep], values[keep])


def _part(values: Sequence[float]) -> Part:
    return Part(fmean(values), stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None)
