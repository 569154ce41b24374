"""Trials to charts: what a page hands to `<lab-chart>`. No point is read here; the browser asks for them.

Metric names and labels come from candidates: they are data, and travel as JSON in an attribute.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from django.utils.text import slugify

from research.models import Experiment, Project, Series, Trial
from research.views.pairs import order_of

MAX_LINES = 8  # before dashes begin; more are a tangle on a small chart
COLOURS = 8
SHOWN = 4  # metrics drawn unless a person asks for others
MAX_METRICS = 40  # names that are offered
FIRST = ("loss", "bpb", "bits", "score", "error", "accuracy")
LAST = ("learning_rate", "lr", "rate", "step", "tokens", "seconds")


@dataclass(frozen=True)
class Line:
    """One trial on a chart."""

    trial: Trial
    label: str
    slot: int
    dash: bool = False


@dataclass(frozen=True)
class Chart:
    id: str
    metric: str
    spec: str
    empty: str


@dataclass(frozen=True)
class Curves:
    """The charts of one experiment. `hidden` counts the lines that were left out."""

    charts: Sequence[Chart]
    metrics: Sequence[str]
    hidden: int = 0
    waits: bool = False  # a trial has begun and no point has come: the page asks again until one has


def curves_of(experiment: Experiment, chosen: Sequence[str] = (), limit: int = MAX_LINES) -> Curves:
    """Candidates as lines, the newest `limit` of them; baselines as a band."""
    states = (Trial.State.LEASED, Trial.State.ENDED)
    trials = list(experiment.trials.filter(state__in=states).order_by("pk"))
    candidates = [trial for trial in trials if trial.arm == Trial.Arm.CANDIDATE]
    candidates.sort(key=lambda trial: order_of(trial.stage, trial.pair))
    lines = [
        Line(trial, f"{trial.stage} {trial.pair + 1}", at % COLOURS, at // COLOURS % 2 == 1)
        for at, trial in enumerate(candidates)
    ]
    band = [trial for trial in trials if trial.arm == Trial.Arm.BASELINE]
    drawn = lines[-limit:]
    known = metrics_of(trials)
    metrics = known or metrics_of_project(experiment.project)
    waits = not known and any(trial.state == Trial.State.LEASED for trial in trials)
    return Curves(draw(drawn, band, metrics, chosen), metrics, len(lines) - len(drawn), waits)


def draw(
    lines: Sequence[Line], band: Sequence[Trial], metrics: Sequence[str], chosen: Sequence[str] = ()
) -> list[Chart]:
    shown = [metric for metric in metrics if metric in chosen] or list(metrics[:SHOWN])
    return [_chart(metric, lines, band) for metric in shown]


def _chart(metric: str, lines: Sequence[Line], band: Sequence[Trial]) -> Chart:
    spec = {
        "metric": metric,
        "title": metric.replace("_", " "),
        "unit": "",
        "lines": [
            {
                "trial": line.trial.public_id, "label": line.label, "slot": line.slot, "dash": line.dash,
                "live": line.trial.state == Trial.State.LEASED,
            }
            for line in lines
        ],
        "band": [trial.public_id for trial in band],
        "bandLabel": f"baseline, {len(band)} {'seed' if len(band) == 1 else 'seeds'}",
        "height": 220,
    }  # fmt: skip
    return Chart(chart_id(metric), metric, json.dumps(spec), "The first points come when a machine takes the pair")


def chart_id(metric: str) -> str:
    """The same for the same metric, so that the address keeps its zoom. Names may hold anything: a sum tells twins."""
    return f"chart-{slugify(metric)[:30] or 'metric'}-{zlib.crc32(metric.encode()) & 0xFFFF:04x}"


def metrics_of(trials: Sequence[Trial]) -> list[str]:
    """The metrics that any of these trials logged, those that tell most first."""
    series = Series.objects.newest().filter(trial__in=[trial.pk for trial in trials])
    return in_order(list(series.values_list("metric", flat=True).distinct()[: 4 * MAX_METRICS]))


def metrics_of_project(project: Project) -> list[str]:
    """What the project's newest trial logged: a guess at what the next one will."""
    newest = Series.objects.filter(trial__project=project).order_by("-trial").values_list("trial", flat=True).first()
    series = Series.objects.filter(trial=newest).values_list("metric", flat=True).distinct()
    return in_order(list(series[: 4 * MAX_METRICS])) if newest else []


def in_order(metrics: Sequence[str]) -> list[str]:
    return sorted(set(metrics), key=lambda metric: (_weight(metric), metric))[:MAX_METRICS]


def _weight(metric: str) -> int:
    name = metric.lower()
    if any(word in name for word in FIRST):
        return 0
    return 2 if name in LAST else 1
