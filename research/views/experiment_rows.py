"""Experiments as rows of a table: the claim, one glyph a pair of seeds, the gain and the verdict or what runs now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from django.db.models import QuerySet

from research.models import Experiment, Trial
from research.validation.records import VerdictKind
from research.views.gain import Gain, gain_of
from research.views.now import Now, measuring

GLYPHS = {"done": "●", "running": "◐", "waiting": "○", "failed": "×"}
STAGES = ("noise", "screen", "extend", "confirm", "closing")


@dataclass
class ExperimentRow:
    """One line of the table: `seeds` are the pairs by stage, each one glyph."""

    experiment: Experiment
    gain: Gain | None = None
    now: Now | None = None
    seeds: dict[str, str] = field(default_factory=dict)
    isolation: int | None = None  # the lowest level among its results

    @property
    def claim(self) -> str:
        experiment = self.experiment
        if experiment.candidate:
            return experiment.candidate.idea.name
        if experiment.original:
            return f"More seeds for experiment {experiment.original.number}"
        if experiment.label:
            return experiment.label
        return "The start against itself" if experiment.purpose == "noise" else "Champion against start"

    @property
    def outcome(self) -> str:
        """The verdict; where there is none, the purpose or the state."""
        verdict = getattr(self.experiment, "verdict", None)
        return verdict.kind if verdict else self.experiment.state


def experiment_rows(experiments: QuerySet[Experiment], first: int, count: int) -> list[ExperimentRow]:
    """Rows from the place `first` on, in six queries."""
    rows = experiments.select_related("candidate__idea", "thread", "verdict", "original")
    rows = rows.defer("rule", "candidate__recipe", "candidate__idea__steps", "original__rule")
    found = {row.pk: ExperimentRow(row) for row in rows[first : first + count]}
    lines = measuring([row.experiment for row in found.values() if row.experiment.state == Experiment.State.RUNNING])
    for pk, row in found.items():
        row.now = lines.get(pk)
        verdict = getattr(row.experiment, "verdict", None)
        if verdict and verdict.kind != VerdictKind.INVALID:  # it beats any number
            row.gain = gain_of(verdict)
    for pk, level in Experiment.objects.filter(pk__in=list(found)).isolation().items():
        found[pk].isolation = level
    for pk, stage, glyphs in _seeds(list(found)):
        found[pk].seeds[stage] = glyphs
    return list(found.values())


def _seeds(experiments: list[int]) -> Iterator[tuple[int, str, str]]:
    """(experiment, stage, one glyph a pair) of these experiments, in the order of the stages."""
    pairs: dict[tuple[int, str], dict[int, str]] = {}
    rows = Trial.objects.filter(experiment__in=experiments).exclude(state=Trial.State.CANCELLED)
    for experiment, stage, pair, state, failure in rows.values_list(
        "experiment_id", "stage", "pair", "state", "result__failure"
    ):
        mine = pairs.setdefault((experiment, stage), {})
        mine[pair] = _worst(mine.get(pair, "done"), _state_of(state, failure))
    order = {stage: place for place, stage in enumerate(STAGES)}
    for experiment, stage in sorted(pairs, key=lambda key: (key[0], order.get(key[1], 9))):
        mine = pairs[experiment, stage]
        yield experiment, stage, "".join(GLYPHS[mine[pair]] for pair in sorted(mine))


def _state_of(state: str, failure: str | None) -> str:
    if state == Trial.State.ENDED:
        return "failed" if failure else "done"
    return {Trial.State.LEASED: "running", Trial.State.WAITING: "waiting"}.get(Trial.State(state), "failed")


def _worst(one: str, other: str) -> str:
    order = ("failed", "running", "waiting", "done")
    return min(one, other, key=order.index)
