"""Tails of the t, binomial and chi-square distributions in plain Python, so that a page may ask without numpy or scipy.

Degrees of freedom are whole numbers, for which the first two are finite sums. `tests/test_validation_fixed.py` holds
them against scipy.
"""

import math
from collections.abc import Callable


def student_tail(t: float, freedom: int) -> float:
    """P(T >= t) of Student's t (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    if freedom < 1:
        raise ValueError("a t statistic needs at least one degree of freedom")
    theta = math.atan2(abs(t), math.sqrt(freedom))
    sine, square = math.sin(theta), math.cos(theta) ** 2
    if freedom % 2:
        term, total = math.cos(theta), 0.0
        for step in range(2, freedom, 2):
            total += term
            term *= square * step / (step + 1)
        inside = 2 / math.pi * (theta + sine * total)
    else:
        term, total = 1.0, 0.0
        for step in range(1, freedom, 2):
            total += term
            term *= square * step / (step + 1)
        inside = sine * total
    upper = max(0.5 * (1 - inside), 0.0)
    return upper if t >= 0 else 1 - upper


def student_quantile(tail: float, freedom: int) -> float:
    """The t that is exceeded with this probability (below one half)."""
    low, high = 0.0, 1.0
    while student_tail(high, freedom) > tail:
        high *= 2
    return _bisect(lambda t: student_tail(t, freedom) <= tail, low, high)


def sign_tail(wins: int, losses: int) -> float:
    """P(at least so many wins) of wins + losses fair coins: the p-value of the sign test."""
    count = wins + losses
    return math.fsum(math.comb(count, k) for k in range(wins, count + 1)) / 2.0**count


def chi_square_quantile(share: float, freedom: int) -> float:
    """The value below which chi-square lies with this probability."""
    high = 2.0 * freedom + 10
    while _chi_square(high, freedom) < share:
        high *= 2
    return _bisect(lambda x: _chi_square(x, freedom) >= share, 0.0, high)


def _chi_square(x: float, freedom: int) -> float:
    """P(chi-square <= x), by the series of the incomplete gamma function."""
    half, shape = x / 2, freedom / 2
    if half <= 0:
        return 0.0
    term = total = 1 / shape
    step = shape
    while term > 1e-16 * total:
        step += 1
        term *= half / step
        total += term
    return total * math.exp(shape * math.log(half) - half - math.lgamma(shape))


def _bisect(reached: Callable[[float], bool], low: float, high: float) -> float:
    for _ in range(80):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high
