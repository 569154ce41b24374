"""The noise floor: from A/A pairs, and kept fresh by what confirmation measures anyway. Units: those of the metric."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from research.validation.records import NoiseFloor, Scale

Pairs = Sequence[tuple[float, float]]  # (baseline, candidate), in the order they were measured


def noise_floor(pairs: Pairs) -> NoiseFloor:
    """The noise floor of two or more A/A pairs.

    sigma_trial pools all trials: they are the same code. sigma_pair is taken about zero, not about the mean: the
    true difference is zero by construction, so the six pairs of a normal floor keep six degrees of freedom rather
    than five, and an arm that is favoured by its place raises sigma instead of hiding in the mean. drift is the
    least-squares slope over pair means, as the change from first pair to last in sigma_trial. drift_error is its sd
    where nothing drifts: a mean of two arms has variance sigma_trial^2 - sigma_pair^2 / 4, half of sigma_trial^2
    where they are independent, which makes 0.845 for six pairs.
    """
    scores = _scores(pairs)
    count = len(scores)
    sigma_trial = float(scores.std(ddof=1))
    sigma_pair = math.sqrt(float(np.mean((scores[:, 0] - scores[:, 1]) ** 2)))
    place = np.arange(count) - (count - 1) / 2
    slope = float(place @ scores.mean(axis=1) / (place @ place))
    drift = slope * (count - 1) / sigma_trial if sigma_trial > 0 else 0.0
    shared = min(max(1 - sigma_pair**2 / (4 * sigma_trial**2), 0.5), 1.0) if sigma_trial > 0 else 0.5
    return NoiseFloor(
        sigma_trial=sigma_trial,
        sigma_pair=sigma_pair,
        drift=drift,
        trials=scores.size,
        level=float(scores.mean()),
        freedom=count,
        drift_error=math.sqrt(12 * (count - 1) / (count * (count + 1)) * shared),
    )


def pooled_floor(
    floor: NoiseFloor, pairs: Pairs = (), confirms: Sequence[Pairs] = (), scale: Scale = Scale.LINEAR
) -> NoiseFloor:
    """The floor with more A/A pairs (of a new baseline, say) and the confirm pairs of experiments pooled into it.

    Variances are averaged by their degrees of freedom: one for every A/A pair, about zero; n - 1 for the n confirm
    pairs of an experiment, about their own mean, since its true gain is not known. Those of a trial are about twice as
    many, and each group has its own level, so commits of different quality do not count as noise. On the log scale
    every group is brought to the floor's level first: sigma of a time is a share of it.

    Level comes from the newest A/A pairs, drift from those that are three or more; else both stay. `trials` counts A/A
    trials alone.
    """
    if len(pairs) < 2 and not any(len(group) > 1 for group in confirms):
        return floor
    groups = [_scores(group) for group in confirms if len(group) > 1]
    fresh = _scores(pairs) if len(pairs) > 1 else None
    pair_squares = [floor.degrees * floor.sigma_pair**2]
    trial_squares = [(2 * floor.degrees - 1) * floor.sigma_trial**2]
    freedom, trial_freedom = floor.degrees, 2 * floor.degrees - 1
    for group, is_same_code in [(fresh, True)] * (fresh is not None) + [(group, False) for group in groups]:
        scores = _at_level(group, floor.level, scale)
        gaps = scores[:, 0] - scores[:, 1]
        pair_squares.append(float(np.sum(gaps**2) if is_same_code else np.sum((gaps - gaps.mean()) ** 2)))
        arms = scores - (scores.mean() if is_same_code else scores.mean(axis=0))
        trial_squares.append(float(np.sum(arms**2)))
        freedom += len(scores) - (not is_same_code)
        trial_freedom += scores.size - (1 if is_same_code else 2)
    pooled = replace(
        floor,
        sigma_pair=math.sqrt(math.fsum(pair_squares) / freedom),
        sigma_trial=math.sqrt(math.fsum(trial_squares) / trial_freedom),
        freedom=freedom,
    )
    return pooled if fresh is None else _moved(pooled, fresh, scale)


def _moved(floor: NoiseFloor, fresh: NDArray[np.float64], scale: Scale) -> NoiseFloor:
    """The floor at the level of the newest A/A pairs; sigma of a time moves with it."""
    newest = noise_floor([(float(one), float(other)) for one, other in fresh])
    unit = newest.level / floor.level if scale is Scale.LOG and floor.level and newest.level else 1.0
    drifted = newest if len(fresh) > 2 else floor
    return replace(
        floor,
        level=newest.level,
        trials=floor.trials + fresh.size,
        sigma_pair=floor.sigma_pair * unit,
        sigma_trial=floor.sigma_trial * unit,
        drift=drifted.drift,
        drift_error=drifted.drift_error,
    )


def _at_level(scores: "NDArray[np.float64] | None", level: float | None, scale: Scale) -> NDArray[np.float64]:
    """Scores whose differences are those of the logs, in units of the metric at this level."""
    assert scores is not None
    if scale is Scale.LINEAR:
        return scores
    return (level or float(scores.mean())) * np.log(scores)


def _scores(pairs: ArrayLike) -> NDArray[np.float64]:
    scores = np.asarray(pairs, dtype=float)
    if scores.ndim != 2 or scores.shape[1] != 2 or len(scores) < 2 or not np.isfinite(scores).all():
        raise ValueError("a noise floor needs at least two pairs of finite scores")
    return scores
