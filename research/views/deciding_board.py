"""What ideas brought for their cost, how well they were predicted, and where a thread stands: parts of two pages."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from django.utils.safestring import SafeString, mark_safe

from research.drawing.predictions import SERIES, Point, scatter
from research.loop import account, decide
from research.models import Project, Thread
from research.validation.criteria import Progress
from research.validation.predictions import Predicted, predictions, scored
from research.validation.yields import PRIOR_RATE, Mode, Outcome, Stretch, Tried, Yield, yield_of, yields


@dataclass(frozen=True)
class Forecast:
    """How one researcher or model predicts, with the number of its colour."""

    row: Predicted
    color: int


class DecidingBoard:
    """Of a project, or of one of its threads. Everything is looked up when a template asks."""

    usual = PRIOR_RATE

    def __init__(self, project: Project, thread: Thread | None = None) -> None:
        self.project, self.thread = project, thread

    @cached_property
    def tried(self) -> list[Tried]:
        if self.thread is not None:
            return account.of_thread(self.thread)
        return list(account.tried(self.project))

    # Yields

    @cached_property
    def yields(self) -> list[Yield]:
        return yields(self.tried, self.project.price_a_second)

    @property
    def total(self) -> Yield:
        return yield_of("all", self.tried, self.project.price_a_second)

    @property
    def modes(self) -> list[Yield]:
        """By mode, in the order of Mode; those without an idea are left out."""
        price = self.project.price_a_second
        groups = [(mode, [one for one in self.tried if one.mode == mode]) for mode in Mode]
        return [yield_of(str(mode), group, price) for mode, group in groups if group]

    @property
    def price(self) -> float:
        """Of a device-hour."""
        return self.project.price_a_second * 3600

    # Predictions

    @cached_property
    def forecasts(self) -> list[Forecast]:
        return [Forecast(row, number % SERIES) for number, row in enumerate(predictions(self.tried))]

    @property
    def predictions_svg(self) -> SafeString:
        numbers = {forecast.row.who: number for number, forecast in enumerate(self.forecasts)}
        points = [
            Point(
                numbers[one.who], one.who, one.predicted, one.measured or 0.0, one.outcome is Outcome.CONFIRMED,
                one.experiment or 0,
            )
            for one in scored(self.tried)
        ]  # fmt: skip
        words = "; ".join(_words(forecast.row) for forecast in self.forecasts)
        return mark_safe(scatter(points, f"predicted against measured effect: {words}"))  # noqa: S308  it escapes

    # Where a thread stands

    @cached_property
    def stretch(self) -> Stretch:
        assert self.thread is not None
        return decide.look(self.thread)

    @property
    def plateau(self) -> str:
        return decide.plateau_words(self.stretch) if self.stretch.plateaus else ""

    @property
    def repeats(self) -> str:
        assert self.thread is not None
        return decide.repeats(self.thread) if self.is_turned else ""

    @property
    def is_turned(self) -> bool:
        return self.thread is not None and self.thread.researcher in decide.TURNED

    @property
    def newest_mode(self) -> str:
        return next((one.mode for one in reversed(self.tried) if one.mode), "")

    @cached_property
    def progress(self) -> list[Progress]:
        assert self.thread is not None
        return decide.progress(self.thread)


def _words(row: Predicted) -> str:
    if row.error is None or row.bias is None:
        return f"{row.who} none scored, {row.failed} failed"
    return f"{row.who} {row.scored} scored, off by {row.error:.2%}, bias {row.bias:+.2%}".replace("%", " %")
