"""One node of the idea graph, closer: what was claimed, what came of it, what it cost, where to read on."""

from __future__ import annotations

from functools import cached_property

from django.db.models import Sum
from django.urls import reverse

from research.models import Candidate, Experiment, Idea, MergeRequest, Project, Result, Verdict
from research.views.gain import Gain, gain_of
from research.views.pairs import Pairs, pairs_of


def node_board(project: Project, key: str) -> NodeBoard | None:
    """`start`, `main-ID` (a merge) or the public id of an idea."""
    if key == "start":
        return NodeBoard(project, None, is_landing=True)
    public_id = key.removeprefix("main-")
    related = "candidate__experiment__verdict__merge_request__decided_by", "thread", "pointer"
    idea = Idea.objects.filter(thread__project=project, public_id=public_id).select_related(*related).first()
    return NodeBoard(project, idea, is_landing=key != public_id) if idea else None


class NodeBoard:
    def __init__(self, project: Project, idea: Idea | None, is_landing: bool) -> None:
        self.project, self.idea, self.is_landing = project, idea, is_landing

    @cached_property
    def candidate(self) -> Candidate | None:
        return getattr(self.idea, "candidate", None)

    @cached_property
    def experiment(self) -> Experiment | None:
        return getattr(self.candidate, "experiment", None)

    @cached_property
    def verdict(self) -> Verdict | None:
        return getattr(self.experiment, "verdict", None)

    @cached_property
    def request(self) -> MergeRequest | None:
        return getattr(self.verdict, "merge_request", None)

    @cached_property
    def gain(self) -> Gain | None:
        return gain_of(self.verdict) if self.verdict else None

    @cached_property
    def pairs(self) -> Pairs | None:
        return pairs_of([self.experiment])[self.experiment.pk] if self.experiment else None

    @cached_property
    def cost(self) -> float | None:
        """Device-seconds of all its trials, replicates too."""
        if self.experiment is None:
            return None
        results = Result.objects.filter(trial__experiment__in=[self.experiment.pk, *self._replicates])
        total: float | None = results.aggregate(total=Sum("device_seconds"))["total"]
        return total

    @cached_property
    def parent(self) -> Experiment | None:
        """The experiment that made the commit it was measured against."""
        if self.candidate is None:
            return None
        made = Candidate.objects.filter(project=self.project, commit=self.candidate.parent)
        return Experiment.objects.filter(candidate__in=made).first()

    @property
    def compare(self) -> str:
        """This experiment beside the one that it builds on."""
        if self.experiment is None:
            return ""
        ids = [self.experiment.public_id] + ([self.parent.public_id] if self.parent else [])
        return f"{reverse('compare')}?e={','.join(ids)}"

    @property
    def added(self) -> list[tuple[str, str]]:
        """(technique, tunables in words)."""
        steps = self.idea.steps if self.idea else []
        return [
            (str(step["technique"]), ", ".join(f"{name} {value}" for name, value in step.get("tunables", {}).items()))
            for step in steps
        ]

    @cached_property
    def _replicates(self) -> list[int]:
        return list(self.experiment.replicates.values_list("pk", flat=True)) if self.experiment else []
