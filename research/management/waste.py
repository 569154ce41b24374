"""What a campaign measured for nothing: repetitions, and discards tried again while they held. For its summary.

Counted on the rows, by the same rules whether memory was on or off; combinations are left out: merging makes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import Sum

from benchmarks.catalogue import Catalogue
from research.loop.memory import catalogue_of, recipe_of, steps_of, tags_of
from research.models import Candidate, Experiment, Idea, Lesson, Project, Result
from research.researchers.catalogue import is_near
from research.validation.lessons import Standing, changed
from research.validation.similar import Said, repeats


def waste(project: Project, gain: float | None, device_seconds: float) -> dict[str, Any]:
    """`duplicates`: repeat an earlier experiment on the same head. `wasted`: these, and discards tried again."""
    tried = _tried(project)
    again = [one for at, one in enumerate(tried) if any(_same(project, one, before) for before in tried[:at])]
    lost = sorted({*again, *_against_a_discard(project, tried)}, key=lambda candidate: candidate.pk)
    spent = Result.objects.filter(trial__experiment__candidate__in=lost).aggregate(total=Sum("device_seconds"))
    return {
        "memory": project.memory,
        "proposed_and_measured": len(tried),
        "duplicates": len(again),
        "wasted": len(lost),
        "wasted_device_seconds": round(spent["total"] or 0, 1),
        "refused_ideas": Idea.objects.filter(thread__project=project, state=Idea.State.REFUSED).count(),
        "gain_per_device_second": gain / device_seconds if gain is not None and device_seconds else None,
    }


def _tried(project: Project) -> list[Candidate]:
    """Of what was proposed, that which was measured, in order."""
    rows = Candidate.objects.filter(project=project, experiment__purpose=Experiment.Purpose.COMPARE)
    rows = rows.exclude(idea__kind=Idea.Kind.COMBINATION).select_related("idea", "experiment", "diff")
    return list(rows.order_by("experiment__number"))


def _same(project: Project, one: Candidate, before: Candidate) -> bool:
    """The same code on the same parent, or nearly: the same techniques with nearly the same settings."""
    if one.parent != before.parent:
        return False
    if one.tree == before.tree:
        return True
    if Idea.Kind.CHANGE in (one.idea.kind, before.idea.kind):
        return one.idea.kind == before.idea.kind and repeats(_said(one), _said(before)) > 0
    return is_near(catalogue_of(project), steps_of(one.idea.steps), steps_of(before.idea.steps))


def _against_a_discard(project: Project, tried: Sequence[Candidate]) -> set[Candidate]:
    """What had been settled against, on a head that differed in nothing that this rested on."""
    rows = project.lessons.exclude(assumption={}).filter(retracted=False, experiment__candidate__isnull=False)
    discards = list(rows.select_related("experiment__candidate__idea", "experiment__candidate__diff"))
    tags, catalogue = tags_of(project), catalogue_of(project)
    return {
        one for one in tried for lesson in discards
        if lesson.created < one.created and _repeats(catalogue, one, lesson) and _held(lesson, one, tags)
    }  # fmt: skip


def _repeats(catalogue: Catalogue, one: Candidate, lesson: Lesson) -> bool:
    before = lesson.experiment.candidate if lesson.experiment else None
    if before is None or before.idea.kind != one.idea.kind:
        return False
    if one.idea.kind == Idea.Kind.CHANGE:
        return repeats(_said(one), _said(before)) > 0
    return is_near(catalogue, steps_of(one.idea.steps), steps_of(before.idea.steps))


def _held(lesson: Lesson, one: Candidate, tags: dict[str, frozenset[str]]) -> bool:
    assumed = lesson.assumes
    recipe = tuple(step.technique for step in recipe_of(one.project, one.parent))
    return assumed is not None and not changed(assumed, Standing(assumed.preset, recipe, None, ""), tags)


def _said(candidate: Candidate) -> Said:
    diff = getattr(candidate, "diff", None)
    return Said(f"{candidate.idea.hypothesis}\n{candidate.idea.plan}", diff.patch if diff else "")
