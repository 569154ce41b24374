"""Round ticks and linear scales, for every drawing. Numbers in, numbers and labels out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MINUS = "\N{MINUS SIGN}"
DAY = 86_400
TIME_STEPS = (60, 300, 600, 1800, 3600, 7200, 21_600, 43_200, 86_400, 172_800, 604_800)  # seconds


@dataclass(frozen=True)
class Scale:
    """Maps low..high onto start..end; what lies outside lands on the edge."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low
        share = (value - self.low) / span if span else 0.5
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) inside low..high, `about` so many, smallest first."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low] if math.isfinite(low) else []
    raw = span / max(1, about)
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(factor for factor in (1, 2, 5, 10) if raw <= factor * power * 1.000001)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def whole_ticks(low: float, high: float, about: int = 6) -> list[float]:
    """As `ticks`, whole numbers only."""
    return [tick for tick in ticks(low, high, about) if tick == int(tick)]


def time_ticks(seconds: float, about: int = 6) -> list[tuple[float, str]]:
    """Marks of elapsed time from 0 to `seconds`, as (seconds, label)."""
    if not (math.isfinite(seconds) and seconds > 0):
        return [(0.0, "0")]
    step = next((s for s in TIME_STEPS if seconds / s <= about), TIME_STEPS[-1] * math.ceil(seconds / 604_800 / about))
    marks = range(0, int(seconds) + 1, step)
    if step >= DAY:
        return [(float(at), f"{at // DAY} d" if at else "0") for at in marks]
    return [(float(at), elapsed(at)) for at in marks]


def elapsed(seconds: float) -> str:
    """0, 20 min, 3 h, 1 h 30, 4 d."""
    if not seconds:
        return "0"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d}" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def percent_labels(values: Sequence[float]) -> list[str]:
    """Shares as percentages, with as many places as the closest two need."""
    gaps = [abs(b - a) for a, b in zip(values, values[1:], strict=False)]
    places = max(0, -math.floor(math.log10(min(gaps) * 100) + 1e-9)) if gaps and min(gaps) > 0 else 0
    return [f"{100 * value:.{min(places, 12)}f} %".replace("-", MINUS) for value in values]


def log_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers inside low..high (both above 0) for a logarithmic axis: at most `about`, evenly as that allows."""
    if not (0 < low <= high and math.isfinite(high)):
        return []
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for factors in ((1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 5), (1, 3), (1,)):
        found = [mark for power in powers for factor in factors if low <= (mark := factor * 10.0**power) <= high]
        if len(found) <= about:
            return found if len(found) > 1 else _close_ticks(low, high, about)
    return found[:: math.ceil(len(found) / about)]


def _close_ticks(low: float, high: float, about: int) -> list[float]:
    """Where a logarithmic axis is so short that it is nearly even, in units of a power of ten: `ticks` rounds them."""
    power = 10.0 ** math.floor(math.log10(low))
    if high < low * 1.000001:
        return [low]
    return [mark * power for mark in ticks(low / power, high / power, about)]


def short_time(milliseconds: float) -> str:
    """541 ns, 54.1 µs, 5.41 ms, 1.2 s: three digits."""
    for unit, size in (("s", 1e3), ("ms", 1.0), ("µs", 1e-3)):
        if milliseconds >= 0.9995 * size:
            return f"{milliseconds / size:.3g} {unit}"
    return f"{milliseconds * 1e6:.3g} ns"
