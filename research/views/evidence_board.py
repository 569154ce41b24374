"""What the evidence page shows, part by part: the looks, the effect, the campaign's bar, what decides it.

The frozen evidence of a verdict is read, never the rows it came from; while an experiment runs, what the rule would
read now. Costs, audits and curves are in `evidence_trials`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import median

from django.contrib.auth.models import AbstractUser
from django.utils.safestring import SafeString, mark_safe

from research.drawing import looks as drawing
from research.drawing.forest import Bar, forest
from research.drawing.strip import Effect, strip
from research.drawing.strip import Pair as Dot
from research.loop.beside import interaction_of
from research.loop.evidence import gather
from research.models import Diff, Experiment, Membership, MergeRequest, Role, Verdict
from research.models.experiment import MOST_SEEDS
from research.validation import rules
from research.validation.looks import Look, confirmed_before, looks
from research.validation.records import Evidence, Rule, Stage
from research.validation.split import Part
from research.views.evidence_trials import TrialsOf
from research.views.experiment_board import ExperimentBoard
from research.views.pairs import short
from research.views.worth_board import Together

FEWEST_SEEDS = 2  # that can be asked for at once


@dataclass(frozen=True)
class Turn:
    """The place of an experiment in the campaign, and what follows from it."""

    turn: int
    confirmed: int
    share: float  # gamma of the turn
    alpha: float
    bar: float


@dataclass(frozen=True)
class Deciding:
    """How many more pairs would probably settle it, and what they cost."""

    needed: int | None  # 0: settled; None: no affordable number
    asked: int  # what `m` asks for, so many at a time; 0 where it asks for nothing
    seconds: float | None  # of devices, for one pair

    @property
    def minutes(self) -> str:
        """Device minutes until it is decided; empty where no trial has told what a pair costs."""
        return self._minutes(self.needed)

    @property
    def asked_minutes(self) -> str:
        return self._minutes(self.asked)

    def _minutes(self, pairs: int | None) -> str:
        if not pairs or self.seconds is None:
            return ""
        minutes = pairs * self.seconds / 60
        return f"{minutes:.{1 if minutes < 10 else 0}f}"


class EvidenceBoard:
    """One experiment's evidence as one person sees it. Everything is computed when a template asks."""

    def __init__(self, experiment: Experiment, user: AbstractUser) -> None:
        self.experiment, self.user = experiment, user
        self.project = experiment.project
        self.page = ExperimentBoard(experiment)
        self.trials = TrialsOf(self.page)
        self.rule = Rule.from_json(experiment.rule)
        self.metric = self.page.metric

    @property
    def verdict(self) -> Verdict | None:
        return self.page.verdict

    @property
    def is_running(self) -> bool:
        return self.page.is_running

    @cached_property
    def evidence(self) -> Evidence | None:
        """Frozen with the verdict; what the rule would read now while there is none. None where no rule reads it."""
        if self.verdict is not None:
            return Evidence.from_json(self.verdict.evidence)
        if self.experiment.purpose not in (Experiment.Purpose.COMPARE, Experiment.Purpose.REPLICATE):
            return None  # a noise floor, an audit, a part of something: measured beside the verdicts
        return gather(self.experiment)

    @property
    def request_row(self) -> MergeRequest | None:
        """The merge request that rests on this verdict."""
        return MergeRequest.objects.filter(verdict=self.verdict).first() if self.verdict else None

    # The looks

    @cached_property
    def looks(self) -> tuple[Look, ...]:
        return looks(self.evidence, self.rule, not self.is_running) if self.evidence else ()

    @property
    def last(self) -> Look | None:
        return self.looks[-1] if self.looks else None

    @property
    def bar(self) -> float | None:
        """What the e-value has to reach; None until the campaign has said so."""
        if self.verdict is not None:
            return self.verdict.bar
        return (self.experiment.original or self.experiment).bar

    @cached_property
    def turn(self) -> Turn | None:
        """Its turn among the hypotheses of the campaign. None before its first look, and where no turn was taken."""
        mine = self.experiment.original or self.experiment
        if mine.hypothesis is None or mine.bar is None:
            return None
        confirmed = confirmed_before(self.rule, mine.hypothesis, mine.bar)
        share = 1 / (self.rule.alpha * mine.bar * (confirmed + 1))
        return Turn(mine.hypothesis, confirmed, share, self.rule.alpha, mine.bar)

    @property
    def planned_looks(self) -> list[int]:
        """The looks still ahead of one that runs."""
        done = self.last.pairs if self.last else 0
        return [look for look in self.rule.looks if look > done] if self.is_running else []

    @property
    def looks_svg(self) -> SafeString:
        readings = [
            drawing.Reading(look.pairs, look.e_value, look.e_against, str(look.kind or "")) for look in self.looks
        ]
        drawn = drawing.path(
            readings, self.planned_looks, self.bar, self.rule.worse_bar, self.rule.futility_e, self.rule.futility_from
        )
        return mark_safe(drawn)  # noqa: S308  it escapes

    # The seeds and what they come to

    @property
    def effect(self) -> Effect | None:
        """Of the newest look: with a verdict, the one that decided."""
        look = self.last
        return Effect(look.mean, look.shrunk, look.low, look.high) if look else None

    @property
    def sigma(self) -> float | None:
        return self.evidence.noise.sigma_pair if self.evidence and self.evidence.noise else None

    @property
    def half(self) -> str:
        """Half the interval of the newest look, as it stands behind a ±."""
        look = self.last
        return "" if look is None or look.low is None or look.high is None else short((look.high - look.low) / 2)

    @property
    def in_sigmas(self) -> float | None:
        return self.last.mean / self.sigma if self.last and self.sigma else None

    @property
    def strip_svg(self) -> SafeString:
        dots = [
            Dot(pair.stage, pair.seed, pair.baseline.score, pair.candidate.score, pair.gain)
            for pair in self.page.pairs.rows
            if pair.gain is not None and pair.baseline and pair.candidate
            and pair.baseline.score is not None and pair.candidate.score is not None
        ]  # fmt: skip
        metric = self.metric.name.replace("_", " ")
        drawn = strip(dots, self.effect, self.sigma, metric, self.metric.lower_is_better)
        return mark_safe(drawn)  # noqa: S308  it escapes

    # What the trials tell besides

    @property
    def split_svg(self) -> SafeString:
        """Throughput and modelling as bars, with a standard error on both sides."""
        split = self.trials.split
        if split is None or self.trials.split_metric is None:
            return SafeString("")
        parts = (("at equal steps: modelling", split.modelling), ("more steps: throughput", split.throughput))
        bars = [_bar(label, part, "part") for label, part in parts]
        bars.append(_bar("together", split.total, "sum"))
        drawn = forest(bars, "", f"{self.trials.split_metric[0]} at the end, what it gained")
        return mark_safe(drawn)  # noqa: S308  it escapes

    @property
    def steps_change(self) -> float | None:
        split = self.trials.split
        return split.candidate_steps / split.baseline_steps - 1 if split and split.baseline_steps else None

    @property
    def diff(self) -> Diff | None:
        return getattr(self.experiment.subject, "diff", None)

    @property
    def sets(self) -> list[tuple[str, str]]:
        """Which data scored which pairs, how often they were used, and what the pairs count for."""
        said = []
        for stage, split, rows in self.page.measured:
            done = sum(row.pair.gain is not None for row in rows)
            pairs = f"{done} pair{'' if done == 1 else 's'}"
            use = "fresh seeds"
            if stage in ("screen", "extend"):
                at = f"at {preset}, " if (preset := self.experiment.preset_at(stage)) else ""
                use = f"{at}which chose the candidate and count for nothing"
            said.append((stage, f"{self.page.data.said(split)}; {pairs}, {use}"))
        return said

    @property
    def clock(self) -> str:
        sizes = self.project.sizes
        what = "CPU seconds of all its processes" if sizes.clock == "cpu" else "seconds of a stopwatch"
        cap = f"at most {sizes.wall_cap_seconds:g} s"
        screens = self.experiment.preset_at("screen") if not self.experiment.preset else ""
        apart = f"; screening at {screens}: {self.project.contract.preset(screens).budget_seconds:g}" if screens else ""
        return f"{sizes.budget_seconds:g} {what} from the moment the text can be read, {cap}{apart}"

    @cached_property
    def together(self) -> Together | None:
        """A combination of threads beside its parts; None where it is none, or an arm has no pair yet."""
        subject = self.experiment.subject
        found = interaction_of(subject) if subject and subject.parts else None
        return Together(subject, found, self.metric.unit) if subject and found else None

    # More pairs

    @property
    def may_ask(self) -> bool:
        return Membership.role_of(self.user, self.project) >= Role.MEMBER

    @cached_property
    def deciding(self) -> Deciding | None:
        """None before there is a confirm pair, and where the rule reads once: nothing may be added to its pairs."""
        if not self.rule.is_sequential:
            return None
        if self.evidence is None or not any(pair.stage is Stage.CONFIRM for pair in self.evidence.pairs):
            return None
        if self.verdict is not None:
            needed = self.experiment.pairs_to_decide()
        else:
            needed = rules.pairs_to_decide([self.evidence], self.rule)
        can_ask = self.verdict is not None and self.may_ask and not self.measuring_more
        asked = min(max(needed, FEWEST_SEEDS), MOST_SEEDS) if needed and can_ask else 0
        return Deciding(needed, asked, self.seconds_a_pair)

    @property
    def measuring_more(self) -> bool:
        return any(row.state == Experiment.State.RUNNING for row in self.page.replicates)

    @property
    def seconds_a_pair(self) -> float | None:
        """Device-seconds of both arms, median over the trials that ended."""
        spent = [result.device_seconds for result in self.page.results if not result.failure]
        return 2 * median(spent) if spent else None

    @property
    def topics(self) -> str:
        return self.page.more_topics


def _bar(label: str, part: Part, kind: str) -> Bar:
    if part.error is None:
        return Bar(label, part.mean, kind=kind, note="(one pair)")
    return Bar(label, part.mean, part.mean - part.error, part.mean + part.error, kind)
