"""The merge page of one request: claim, evidence, stack, files, and what a merge would do to the other threads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import floor, log10, sqrt
from statistics import fmean

from django.contrib.auth.models import AbstractUser
from django.utils.safestring import SafeString, mark_safe

from research.drawing import strip
from research.models import Experiment, Finding, Membership, MergeRequest, NotMergeable, Result, Role
from research.templatetags.lab import MINUS, NO_NUMBER, evalue, percent
from research.validation.outcomes import Pooled
from research.views.findings import FindingRow, finding_rows
from research.views.gain import Gain, gain_of
from research.views.pairs import direction_of, pairs_of
from research.views.review_checks import Check, checks
from research.views.review_costs import Guard, guards_of
from research.views.review_fates import Fate, fates
from research.views.review_queue import Queue, blocked, effect_of, sigma_of

MORE = (4, 8, 16)  # pairs for which the page says how far they would narrow the interval
STACK = ("candidate__idea",)


@dataclass(frozen=True)
class Narrower:
    pairs: int
    half: str


class RequestPage:
    """One request as one person sees it. Everything is computed when the template asks."""

    def __init__(self, request: MergeRequest, user: AbstractUser) -> None:
        self.request, self.user = request, user
        self.verdict = request.verdict
        self.experiment = request.verdict.experiment
        self.project = request.project
        self.metric = request.project.contract.metric
        self.is_open = request.state == MergeRequest.State.OPEN

    # Whose turn

    @cached_property
    def role(self) -> int:
        return Membership.role_of(self.user, self.project)

    @property
    def may_decide(self) -> bool:
        return self.is_open and self.role >= Role.REVIEWER

    @cached_property
    def undone(self) -> list[MergeRequest]:
        """The merges that a rollback to before this one takes back, newest first; none where it cannot be."""
        try:
            self.request.may_roll_back(self.user)  # type: ignore[arg-type]
        except NotMergeable:
            return []
        line = MergeRequest.objects.line(self.project)
        return line[line.index(self.request) :][::-1]

    @property
    def may_measure(self) -> bool:
        return self.is_open and self.role >= Role.MEMBER

    @property
    def may_comment(self) -> bool:
        return self.role >= Role.MEMBER

    @cached_property
    def blocked(self) -> str:
        return blocked(self.request, self.user)

    @cached_property
    def queue(self) -> tuple[MergeRequest | None, MergeRequest | None, int, int]:
        return Queue(self.user).around(self.request)

    @property
    def previous(self) -> MergeRequest | None:
        return self.queue[0]

    @property
    def following(self) -> MergeRequest | None:
        return self.queue[1]

    @property
    def place(self) -> str:
        _, _, at, of = self.queue
        return f"{at} of {of}" if at else ""

    # Claim

    @cached_property
    def gain(self) -> Gain | None:
        return gain_of(self.verdict)

    @property
    def half(self) -> float | None:
        low, high = self.verdict.low, self.verdict.high
        return None if low is None or high is None else (high - low) / 2

    @property
    def change(self) -> float | None:
        """How the metric moves: negative where lower is better and the candidate is better."""
        effect = self.verdict.effect
        return None if effect is None else -effect if self.metric.lower_is_better else effect

    @property
    def measured(self) -> str:
        """`−0.0946 ± 0.0360 bits/byte`."""
        around = f" ± {self.written['half']}" if self.half is not None else ""
        return f"{self._signed(self.change)}{around} {self.metric.unit}"

    @cached_property
    def written(self) -> dict[str, str]:
        """The numbers of the verdict, all with as many places as the effect needs for three digits."""
        verdict = self.verdict
        gains = {"effect": verdict.effect, "low": verdict.low, "high": verdict.high, "shrunk": verdict.shrunk,
                 "screened": self.screened}  # fmt: skip
        spreads = {"half": self.half, "sigma": self.sigma}
        written = {name: self._signed(value) for name, value in gains.items()}
        written |= {name: self._signed(value).lstrip("+") for name, value in spreads.items()}
        return written | {"e_value": evalue(verdict.e_value)}

    def _signed(self, value: float | None) -> str:
        size = abs(self.verdict.effect or 0.0)
        places = min(8, max(0, 2 - floor(log10(size)))) if size else 4
        return NO_NUMBER if value is None else f"{value:+.{places}f}".replace("-", MINUS)

    @property
    def relative(self) -> str:
        """`+4.4 % ± 1.7 %`."""
        if self.gain is None:
            return ""
        around = f" ± {percent(self.gain.half).lstrip('+')}" if self.gain.half is not None else ""
        return f"{percent(self.gain.mean)}{around}"

    @cached_property
    def checks(self) -> list[Check]:
        return checks(self.request, self.results, self.findings)

    # Evidence

    @cached_property
    def results(self) -> list[Result]:
        """Of the confirm trials."""
        found = Result.objects.filter(trial__experiment=self.experiment, trial__stage="confirm")
        rows = found.select_related("trial", "machine").defer("message", "sample", "observations")
        return list(rows.order_by("pk"))

    @cached_property
    def replicates(self) -> list[Experiment]:
        return list(self.experiment.replicates.select_related("verdict").order_by("pk"))

    @cached_property
    def pooled(self) -> Pooled | None:
        return self.experiment.pooled() if any(hasattr(row, "verdict") for row in self.replicates) else None

    @property
    def pooled_words(self) -> str:
        """`+0.0958 (+0.0763 … +0.1153), +4.4 %, e-value 18,332`."""
        if self.pooled is None:
            return ""
        low, high = self._signed(self.pooled.low), self._signed(self.pooled.high)
        interval = f" ({low} … {high})" if self.pooled.low is not None else ""
        gain = f"{self._signed(self.pooled.effect)}{interval}, {percent(self.pooled.relative)}"
        return f"{gain}, e-value {evalue(self.pooled.e_value)}"

    @property
    def strip(self) -> SafeString:
        direction = direction_of(self.experiment)
        pairs = [
            strip.Pair(pair["stage"], pair["seed"], pair["baseline"], pair["candidate"],
                       direction.gain(pair["baseline"], pair["candidate"]))
            for pair in self.verdict.evidence["pairs"]
        ]  # fmt: skip
        for measured in pairs_of(self.replicates).values():
            for pair in measured.rows:
                if pair.gain is not None and pair.baseline and pair.candidate:
                    first, second = pair.baseline.score or 0.0, pair.candidate.score or 0.0
                    pairs.append(strip.Pair("replicate", pair.seed, first, second, pair.gain))
        metric = self.metric.name.replace("_", " ")
        drawn = strip.strip(pairs, effect_of(self.verdict), self.sigma, metric, self.metric.lower_is_better)
        return mark_safe(drawn)  # noqa: S308  it escapes

    @property
    def sigma(self) -> float | None:
        return sigma_of(self.verdict)

    @property
    def sigmas(self) -> float | None:
        return self.verdict.effect / self.sigma if self.verdict.effect is not None and self.sigma else None

    @property
    def screened(self) -> float | None:
        """Mean gain of the pairs before confirmation: what made it a candidate, and counts for nothing."""
        direction = direction_of(self.experiment)
        gains = [
            direction.gain(pair["baseline"], pair["candidate"])
            for pair in self.verdict.evidence["pairs"]
            if pair["stage"] != "confirm"
        ]
        return fmean(gains) if gains else None

    @property
    def narrower(self) -> list[Narrower]:
        """Half the interval after more pairs, by the normal approximation: it shrinks with the root of their number."""
        done = self.verdict.pairs
        if self.half is None or not done:
            return []
        halves = {more: self.half * sqrt(done / (done + more)) for more in MORE}
        return [Narrower(more, self._signed(half).lstrip("+")) for more, half in halves.items()]

    @property
    def machines(self) -> list[str]:
        return sorted({f"{result.machine.name} ({result.machine_class})" for result in self.results})

    @property
    def levels(self) -> list[int]:
        return sorted({result.isolation_level for result in self.results})

    @cached_property
    def guards(self) -> list[Guard]:
        return guards_of(self.results)

    @cached_property
    def findings(self) -> list[Finding]:
        return [row.finding for row in self.finding_rows]

    @cached_property
    def finding_rows(self) -> list[FindingRow]:
        return finding_rows(self.experiment, self.user)

    @cached_property
    def unresolved(self) -> int:
        """Comments of this request and its other patch sets that nobody has resolved."""
        return self.request.talk.unresolved().count()

    # Stack and what a merge would do

    @cached_property
    def below(self) -> list[MergeRequest]:
        """Open ancestors, the lowest first: an approval approves them too."""
        return self.request.stack()[:-1]

    @cached_property
    def above(self) -> list[MergeRequest]:
        """Open requests that stand on this one, nearest first."""
        found: list[MergeRequest] = []
        layer = [self.request.pk]
        rows = list(MergeRequest.objects.open().filter(project=self.project).select_related(*STACK))
        while layer:
            upper = [row for row in rows if row.parent_id in layer]
            found += upper
            layer = [row.pk for row in upper]
        return found

    @property
    def approval(self) -> str:
        """The one line that an approval confirms."""
        line = f"Merge {self.request.commit[:8]} into main: {self.measured} ({self.relative})."
        if self.below:
            names = ", ".join(row.commit[:8] for row in self.below)
            line += f" This also approves {len(self.below)} below it: {names}."
        return line

    @cached_property
    def fates(self) -> list[Fate]:
        """What happens to every other thread of the project when this is merged."""
        return fates(self.request)
