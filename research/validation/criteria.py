"""Kill criteria: typed rules, set beforehand, by which a line of inquiry or an idea is given up."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

NAMES = ("experiments_without_gain", "money_without_gain", "device_seconds_without_gain", "until")


@dataclass(frozen=True)
class Spent:
    """Since the last confirmed gain, or since a person set the thread going."""

    experiments: int = 0
    money: float = 0.0
    device_seconds: float = 0.0
    today: date = date.min


@dataclass(frozen=True)
class Progress:
    """How far one criterion is from being met; `share` is 1 where it is."""

    name: str
    spent: str
    limit: str
    share: float | None = None
    met: bool = False


@dataclass(frozen=True)
class Criteria:
    """None: that one is not set. A date ends with its day, in UTC."""

    experiments_without_gain: int | None = None
    money_without_gain: float | None = None
    device_seconds_without_gain: float | None = None
    until: date | None = None

    @classmethod
    def from_json(cls, data: object) -> "Criteria":
        """Raises ValueError with one line that says what is wrong; names that are not there are not set."""
        if not isinstance(data, Mapping):
            raise ValueError("criteria are an object of names and limits")
        if unknown := sorted(str(name) for name in set(data) - set(NAMES)):
            raise ValueError(f"there is no criterion {', '.join(unknown)[:80]}; there are {', '.join(NAMES)}")
        return cls(
            _count(data.get("experiments_without_gain")),
            _amount("money_without_gain", data.get("money_without_gain")),
            _amount("device_seconds_without_gain", data.get("device_seconds_without_gain")),
            _date(data.get("until")),
        )

    def to_json(self) -> dict[str, object]:
        """What is set, and nothing else."""
        fields = {name: value for name, value in vars(self).items() if value is not None}
        return {name: value.isoformat() if isinstance(value, date) else value for name, value in fields.items()}

    def progress(self, spent: Spent) -> list[Progress]:
        found = []
        if self.experiments_without_gain is not None:
            most = self.experiments_without_gain
            found.append(_toward("experiments without a confirmed gain", spent.experiments, most, "{:,.0f}"))
        if self.money_without_gain is not None:
            found.append(_toward("money without a confirmed gain", spent.money, self.money_without_gain, "{:,.2f}"))
        if self.device_seconds_without_gain is not None:
            limit = self.device_seconds_without_gain
            name = "device-seconds without a confirmed gain"
            found.append(_toward(name, spent.device_seconds, limit, "{:,.0f}"))
        if self.until is not None:
            met = spent.today > self.until
            left = (self.until - spent.today).days
            words = "over" if met else "its last day" if not left else f"{left} day{'s' if left != 1 else ''} left"
            found.append(Progress("until", words, self.until.isoformat(), None, met))
        return found

    def met(self, spent: Spent) -> str:
        """The first criterion that is met, as a reason; empty where none is."""
        for one in self.progress(spent):
            if one.met:
                return f"{one.spent} {one.name}" if one.share is not None else f"its time ended with {one.limit}"
        return ""


def _toward(name: str, spent: float, limit: float, form: str) -> Progress:
    share = min(1.0, spent / limit)
    return Progress(name, form.format(spent), form.format(limit), share, spent >= limit)


def _count(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 100_000:
        raise ValueError("experiments_without_gain is a whole number from 1 to 100000")
    return value


def _amount(name: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0 < value < 1e9:
        raise ValueError(f"{name} is a number above 0 and below 1000000000")
    return float(value)


def _date(value: object) -> date | None:
    if value is None:
        return None
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        raise ValueError("until is a date, as 2030-12-31") from None
