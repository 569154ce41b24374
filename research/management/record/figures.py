"""Drawings of a record alone, each a file of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from research.drawing.learning import Curve, learning
from research.drawing.parts import Gain, Share, parts
from research.drawing.quality import Both, both
from research.drawing.scale import time_ticks
from research.drawing.sheet import rules, sheet, variables
from research.drawing.staircase import Axis, Dot, Step, staircase
from research.drawing.strip import Effect, Pair, strip
from research.management.record import Record
from research.management.record.words import percent, relation_words
from research.validation.combine import Measured, measured
from research.validation.records import PairedScore, Relation, Rule, Stage
from research.validation.sooner import AtBudget, Sooner
from research.validation.tails import student_quantile
from research.views.results_board import quality_drawing


@dataclass(frozen=True)
class Figure:
    """`kind` is the class of the drawing, whose rules of the style sheets it takes along."""

    name: str
    title: str
    caption: str
    kind: str
    drawing: str

    @property
    def svg(self) -> str:
        folder = settings.BASE_DIR / "static"
        css = "".join((folder / "css" / name).read_text() for name in ("drawing.css", "evidence.css"))
        look = rules(css, self.kind)
        return sheet(self.drawing, self.title, self.caption, variables((folder / "lab.css").read_text(), look) + look)


def figures(record: Record) -> list[Figure]:
    """All that the record has the numbers for."""
    makers: tuple[Callable[[Record], Figure], ...] = (seeds, quality, frontier, split, curves, fidelity)
    return [figure for make in makers if (figure := make(record)).drawing]


def seeds(record: Record) -> Figure:
    closing, metric = record["closing"], record["project"]["metric"]
    pairs, gain, drawing = closing["pairs"] if closing else [], closing_gain(record), ""
    if gain is not None and gain.effect is not None:
        sign = 1 if metric["lower_is_better"] else -1
        drawn = [
            Pair("fresh", row["seed"], row["baseline"], row["candidate"], sign * (row["baseline"] - row["candidate"]))
            for row in pairs
        ]
        floor = record["noise_floors"].get(record["project"]["preset"])
        effect = Effect(gain.effect, None, gain.low, gain.high)
        drawing = strip(drawn, effect, floor and floor["sigma_pair"], said(record), metric["lower_is_better"])
    caption = (
        "A row a seed: start (ring) and champion (dot) with the same fresh seed, side by side. Below: what each "
        "pair gained, their mean, its interval (whose ends hold at every look), and the noise of a pair (grey band)."
    )
    return Figure("seeds", "The champion against the start, seed by seed", caption, "strip", drawing)


def closing_gain(record: Record) -> Measured | None:
    """The closing pairs' mean gain with its anytime interval; None where nothing closed it."""
    closing = record["closing"]
    if not closing or not closing["pairs"]:
        return None
    pairs = [
        PairedScore(Stage.CONFIRM, at, row["seed"], row["baseline"], row["candidate"])
        for at, row in enumerate(closing["pairs"])
    ]
    return measured("the champion against the start", pairs, Rule.from_json(record["rule"]))


def quality(record: Record) -> Figure:
    rows, found = over_time(record), sooner_rows(record)
    drawing = quality_drawing(rows, found, said(record)) if any(len(mine) > 1 for mine in rows.values()) else ""
    caption = (
        "Each dot is the mean of trials of their own with that budget, its line the 95 % interval by Student's t. "
        "Dashed: from what the start has after its budget to where a line, straight in the log of time, has the same. "
        "≥: there at the shortest budget measured already, so that the factor is a lower bound."
    )
    better = "lower" if record["project"]["metric"]["lower_is_better"] else "higher"
    title = f"Quality against training time ({said(record)}, {better} is better)"
    return Figure("quality", title, caption, "quality", drawing)


def over_time(record: Record) -> dict[str, list[AtBudget]]:
    found = record["results"]["over_time"]
    return {name: [AtBudget.from_json(row) for row in rows] for name, rows in found.items()}


def sooner_rows(record: Record) -> list[tuple[str, Sooner]]:
    found = record["results"]["sooner"]
    return [
        (name, Sooner.from_json({key: value for key, value in row.items() if key != "words"}))
        for name, rows in found.items()
        for row in rows
    ]


def frontier(record: Record) -> Figure:
    seen = record["frontier"]
    attempts, last = seen["attempts"], max((row["device_seconds"] for row in seen["attempts"]), default=0.0)
    spent = max(record["summary"]["device_seconds"], last, 1.0)
    steps = [_step(row) for row in seen["steps"]]
    dots = [Dot(row["device_seconds"], row["height"], row["kind"]) for row in attempts]
    total = None
    if closing := seen["closing"]:
        gain, half = closing["gain"], closing["half"]
        total = Step(spent, gain, gain - half, gain + half, f"{percent(gain)} on {closing['pairs']} fresh pairs")
    words = f"{len(attempts)} attempts, {len(steps)} merges, {record['summary']['trials']} trials"
    axis = Axis(0, spent * 1.01, time_ticks(spent))
    drawing = staircase(steps, dots, axis, total=total, summary=words, height=320) if attempts else ""
    caption = (
        f"{words}. Line: the champion's gain over the start with its 95 % interval, as device time is spent. Dots: "
        "every candidate where its verdict came (green: confirmed), crosses above: invalid ones. Green square: the "
        "champion against the start on fresh seeds."
    )
    return Figure("frontier", "Every verdict and every merge, over device time", caption, "staircase", drawing)


def _step(row: dict[str, Any]) -> Step:
    return Step(row["device_seconds"], row["height"], row["low"], row["high"], row["what"])


def split(record: Record) -> Figure:
    rows = [(f"{at}. {row['name']}", row["split"]) for at, row in enumerate(record["merges"], 1)]
    rows.append(("the champion against the start", record["closing"] and record["closing"]["split"]))
    rows += [(row["label"], row["split"]) for row in record["results"]["transfers"]]
    gains = [
        Gain(label, _share(found["modelling"], found["pairs"]), _share(found["throughput"], found["pairs"]))
        for label, found in rows
        if found
    ]
    caption = (
        "Of the logged training loss, upper bar (blue): lower at equal steps; lower bar (amber): what the arm with "
        "more steps gains after the other's last one. Lines: 95 % intervals over the pairs. Programs under test log "
        "these losses, so they explain gains and are no evidence of them."
    )
    return Figure("parts", "A better model, or more steps in the budget", caption, "parts", parts(gains, "loss"))


def _share(part: dict[str, Any], pairs: int) -> Share:
    half = None if part["error"] is None or pairs < 2 else student_quantile(0.025, pairs - 1) * part["error"]
    return Share(part["mean"], half)


def curves(record: Record) -> Figure:
    closing = record["closing"]
    mine = [row for row in record["curves"] if closing and row["number"] == closing["number"]]
    drawn = [Curve(row["arm"], row["steps"], row["values"]) for row in mine]
    budget = record["project"]["budget_seconds"]
    drawing = learning(drawn, ("start", "champion"), budget, "training loss")
    caption = (
        "Training losses of the closing pairs, a line a seed (start grey, champion blue), each point the mean over a "
        "stretch of steps. Left at equal steps, right at equal training time, all steps of a trial taken as "
        "equally long. The tenth of the points that is highest lies on the upper edge."
    )
    return Figure("curves", "Learning curves of start and champion", caption, "learning", drawing)


def fidelity(record: Record) -> Figure:
    project, found = record["project"], record["fidelity"]
    dots = [Both(row["label"], row["screened"], row["confirmed"]) for row in found["points"]]
    drawing = both(dots, project["screen_preset"], project["preset"], said(record)) if len(dots) > 1 else ""
    words = relation_words(Relation.from_json(found["relation"])) if found["relation"] else "too few for a relation"
    caption = (
        f"Each dot is one technique: its gain at {project['screen_preset']} across, at {project['preset']} upwards; on "
        f"the dashed line both are the same. {words[0].upper()}{words[1:]}."
    )
    return Figure("fidelity", "What the screening preset foretells", caption, "calibration", drawing)


def said(record: Record) -> str:
    return str(record["project"]["metric"]["unit"])
