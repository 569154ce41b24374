"""How the pages write numbers, times and states. One place, so that a number looks the same everywhere."""

from __future__ import annotations

import math
from datetime import datetime
from decimal import Decimal
from typing import TypeGuard

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from runners.isolation import NAMES

register = template.Library()

MINUS, NO_NUMBER = "\N{MINUS SIGN}", "\N{EN DASH}"

# state or kind -> (glyph, tone); the word always stands beside it, so colour is never the only sign
STATES = {
    "active": ("●", "good"), "running": ("◐", "live"), "leased": ("◐", "live"), "waiting": ("○", "quiet"),
    "ended": ("✔", "quiet"), "finished": ("✔", "quiet"), "paused": ("‖", "warn"), "halted": ("▲", "bad"),
    "exhausted": ("■", "warn"), "cancelled": ("–", "quiet"), "lost": ("×", "bad"), "open": ("●", "live"),
    "merged": ("◆", "good"), "rejected": ("×", "bad"), "returned": ("↩", "warn"), "stale": ("◌", "warn"),
    "improved": ("✔", "good"), "worse": ("▼", "bad"), "no_difference": ("=", "quiet"), "inconclusive": ("~", "quiet"),
    "invalid": ("×", "bad"), "proposed": ("○", "quiet"), "implemented": ("◐", "live"), "refused": ("–", "quiet"),
    "gain": ("✔", "good"), "near_miss": ("≈", "warn"), "no_gain": ("=", "quiet"), "harm": ("▼", "bad"),
    "failure": ("×", "bad"), "conflict": ("×", "warn"), "structural": ("×", "bad"), "review": ("▲", "warn"),
    "info": ("·", "quiet"), "rolled_back": ("↶", "bad"), "failed": ("×", "bad"), "stopped": ("■", "warn"),
    "unsettled": ("◌", "quiet"), "asked": ("◐", "live"), "answered": ("✔", "quiet"),
}  # fmt: skip


@register.filter
def word(value: object) -> str:
    """`no_difference` -> `no difference`."""
    return str(value).replace("_", " ")


@register.simple_tag
def status(value: object, text: str = "") -> SafeString:
    """Glyph and word of a state."""
    glyph, tone = STATES.get(str(value), ("·", "quiet"))
    return format_html(
        '<span class="status {}"><span aria-hidden="true">{}</span> {}</span>', tone, glyph, text or word(value)
    )


@register.simple_tag
def isolation(level: int | None, name: bool = True) -> SafeString | str:
    """The badge beside a number: how well the sandbox held where it was measured. Without `name` for narrow places."""
    if level is None:
        return NO_NUMBER
    tone, glyph = ("good", "✔") if level >= 3 else ("warn", "▲") if level else ("bad", "×")
    words = NAMES.get(level, "unknown")
    return format_html(
        '<span class="isolation {}" title="isolation level {}: {}; measured by attacking the sandbox"><span '
        'aria-hidden="true">{}</span> <span class="sr">isolation </span>level {}<span class="{}">, {}</span></span>',
        tone, level, words, glyph, level, "" if name else "sr", words,
    )  # fmt: skip


def _is_number(value: object) -> TypeGuard[float]:
    """What is not there is "" to a template: `{{ verdict.effect|signed }}` without a verdict is a dash too."""
    return isinstance(value, int | float)


@register.filter
def score(value: float | None) -> str:
    """A score with five significant digits."""
    if not _is_number(value):
        return NO_NUMBER
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'' if value > 0 else MINUS}∞"
    text = f"{value:.5g}" if abs(value) >= 1e5 or 0 < abs(value) < 1e-4 else f"{value:.{_places(value)}f}"
    return text.replace("-", MINUS)


def _places(value: float) -> int:
    return max(0, 4 - math.floor(math.log10(abs(value)))) if value else 4


@register.filter
def percent(value: float | None, places: int = 1) -> str:
    """A share with its sign: +1.9 %. A gain is positive in both directions of the metric."""
    if not _is_number(value) or not math.isfinite(value):
        return NO_NUMBER
    rounded = round(100 * value, places)
    return f"{rounded:+.{places}f} %".replace("-", MINUS) if rounded else f"{0:.{places}f} %"


@register.filter
def share(value: float | None) -> str:
    """A share without a sign: 87 %."""
    return NO_NUMBER if not _is_number(value) else f"{100 * value:.0f} %"


@register.filter
def points(value: float | None, places: int = 1) -> str:
    """A share without a sign, for what follows a ±: 1.4 %."""
    return NO_NUMBER if not _is_number(value) or not math.isfinite(value) else f"{100 * abs(value):.{places}f} %"


@register.filter
def signed(value: float | None, digits: int = 3) -> str:
    """A difference in metric units, with its sign, to so many significant digits."""
    if not _is_number(value) or not math.isfinite(value):
        return NO_NUMBER
    places = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else digits
    return f"{value:+.{min(places, 8)}f}".replace("-", MINUS)


@register.filter
def evalue(value: float | None) -> str:
    """Three digits of an e-value; nobody needs more."""
    if not _is_number(value):
        return NO_NUMBER
    if value >= 1e6 or 0 < value < 1e-3:
        return f"{value:.1e}".replace("e+0", "e").replace("e+", "e").replace("e-0", f"e{MINUS}")
    return f"{value:,.0f}" if value >= 99.5 else f"{value:.3g}"


@register.filter
def duration(seconds: float | None) -> str:
    """0.4 s, 12 s, 3 min, 2 h 10 min, 4 d 3 h."""
    if not _is_number(seconds):
        return NO_NUMBER
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


@register.filter
def money(value: Decimal | float | None) -> str:
    """What models cost, in the unit of the price list: cents need no more than three digits, larger sums two places."""
    if not isinstance(value, Decimal | int | float):
        return NO_NUMBER
    amount = float(value)
    if not amount:
        return "0"
    return f"{amount:,.2f}" if amount >= 1 else f"{amount:.{min(8, 2 - math.floor(math.log10(abs(amount))))}f}"


@register.filter
def tokens(value: int | None) -> str:
    """9,870; 98.7 k; 1.23 M."""
    if not _is_number(value):
        return NO_NUMBER
    if value < 10_000:
        return f"{value:,}"
    return f"{value / 1e3:.3g} k" if value < 999_500 else f"{value / 1e6:,.2f} M"


@register.filter
def ago(moment: datetime | None) -> SafeString | str:
    """How long ago, with the exact time on hover. The browser keeps it current (data-ago)."""
    if moment is None:
        return NO_NUMBER
    seconds = max(0.0, (timezone.now() - moment).total_seconds())
    return format_html(
        '<time datetime="{}" title="{} UTC" data-ago>{} ago</time>',
        moment.isoformat(), f"{moment:%Y-%m-%d %H:%M:%S}", duration(seconds),
    )  # fmt: skip


@register.filter
def commit(value: str) -> SafeString | str:
    """A commit, short; the whole of it on hover."""
    return format_html('<code class="commit" title="{}">{}</code>', value, value[:8]) if value else NO_NUMBER


@register.filter
def of(mapping: object, key: object) -> object:
    """`mapping[key]`, or None."""
    return mapping.get(key) if isinstance(mapping, dict) else None
