"""Refuse what was tried: exact repetitions, discards that still hold, near repetitions of free-form changes. For steps.

Every proposer passes here, whoever it is: `refusal_of` before a change is implemented, `refusal_of_code` once its
patch is there. Each answers with one line and the experiment to look at. Without memory (`Project.memory`) both let
everything through but what people ruled out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from django.db.models import Q, QuerySet

from research.loop.memory import (
    base_of,
    catalogue_of,
    changes,
    held_discards,
    recipe_of,
    standing_of,
    steps_of,
    tags_of,
)
from research.loop.problems import is_alike
from research.loop.screens import blind_stops
from research.models import Candidate, Experiment, Idea, Lesson, Project, Thread
from research.models.experiment import ExperimentQuerySet
from research.models.lesson import FREE_FORM
from research.repository import Change
from research.researchers.catalogue import is_near
from research.validation.lessons import changed
from research.validation.similar import LIKE_WORDS, Said, alike_in_words, repeats

NOT_PROPOSED_AGAIN = (Idea.Kind.COMBINATION,)  # made by merging: measured again whenever what they stand on moves


class Refusal(NamedTuple):
    why: str
    pointer: Experiment | None


def reopen_discards(thread: Thread) -> bool:
    """Mark what this thread discarded and its head no longer speaks against. True where rows changed."""
    rows = list(thread.lessons.discards().select_related("experiment").order_by("pk"))
    if not rows:
        return False
    now, tags = standing_of(thread.project, thread.head), tags_of(thread.project)
    over = [(row, why) for row in rows if (assumed := row.assumes) and (why := changed(assumed, now, tags))]
    return any([row.reopen(_by_title(why)) for row, why in over])


def tried_again(lesson: Lesson, idea: Idea) -> list[Lesson]:
    """Discards of free-form changes that were open again and that this idea, with its code, was another look at."""
    if not lesson.is_free_form:
        return []
    rows = lesson.project.lessons.current().filter(reopened__isnull=False, superseded_by=None, imported_from="")
    rows = rows.filter(labels__contains=f" {FREE_FORM}").exclude(pk=lesson.pk)
    mine, found = _said(idea, idea.candidate.diff.patch), []
    for old in rows.select_related("experiment__candidate__diff").order_by("pk"):
        candidate = old.experiment.candidate if old.experiment else None
        if repeats(mine, Said(old.about, candidate.diff.patch if candidate else "")):
            found.append(old)
    return found


def _by_title(words: str) -> str:
    """Free-form changes by their titles: the name of their step tells nobody anything."""
    ids = re.findall(rf"{FREE_FORM}(\w+)", words)
    for idea in Idea.objects.filter(public_id__in=ids):
        words = words.replace(f"{FREE_FORM}{idea.public_id}", f"“{idea.name[:60]}”")
    return words


def refusal_of(idea: Idea, asked: frozenset[str] = frozenset()) -> Refusal | None:
    """Why an idea is not worth implementing. `asked`: techniques that a person wants tried again."""
    thread = idea.thread
    if dead := _dead_end(idea):
        return dead
    if not thread.project.memory or idea.kind in NOT_PROPOSED_AGAIN:
        return None
    if earlier := _same_fingerprint(idea):
        return Refusal(f"the same change on the same head was tried in {earlier}", earlier)
    if asked & set(idea.techniques):
        return None
    return _discarded(idea) or (_same_words(idea) if idea.kind == Idea.Kind.CHANGE else None)


def refusal_of_code(idea: Idea, parent: str, tree: str, change: Change) -> Refusal | None:
    """Why a change is not worth device time, now that its code is there.

    Of many problems, a head that differs only in others is the same head: what was measured there answers it.
    """
    project, patch = idea.project, change.patch
    touched = project.touched(change.paths)
    if dead := _dead_end(idea, patch):
        return dead
    if not project.memory and idea.kind not in NOT_PROPOSED_AGAIN:
        return None
    others = Candidate.objects.filter(project=project).exclude(idea=idea.pk)
    same = others.filter(diff__patch=patch) if project.problems else others.filter(tree=tree)
    own = idea.kind == Idea.Kind.CHANGE
    settled = _settled(project, own)
    if twin := settled.filter(candidate__in=_on_this_ground(project, parent, same, touched)).first():
        return Refusal(f"exactly this code was measured on this head in {twin}", twin)
    if not own:
        return None
    if there := _there_already(idea, parent, patch):
        return there
    held = [lesson.experiment_id for lesson in held_discards(project, parent) if lesson.is_free_form]
    here = _on_this_ground(project, parent, others.filter(idea__kind=Idea.Kind.CHANGE), touched)
    alike = Q(candidate__in=here) | Q(pk__in=held)
    for earlier in settled.filter(alike).select_related("candidate__diff", "candidate__idea").order_by("pk"):
        candidate = earlier.candidate
        assert candidate is not None  # by the filter
        if likeness := repeats(_said(idea, patch), _said(candidate.idea, candidate.diff.patch)):
            on_it = is_alike(project, candidate.parent, parent, touched)
            where = "on this head" if on_it else "on a head that differs in nothing it rests on"
            return Refusal(f"nearly this ({likeness:.0%} alike) was measured {where} in {earlier}", earlier)
    return None


def _settled(project: Project, own: bool) -> ExperimentQuerySet:
    """What answers a repetition; `own`: of code of a researcher's own. What a blind screen stopped answers nothing."""
    found = Experiment.objects.refusing_rewrites() if own else Experiment.objects.refusing_repeats()
    return found.exclude(pk__in=blind_stops(project))


def _on_this_ground(
    project: Project, parent: str, candidates: QuerySet[Candidate], problems: list[str]
) -> QuerySet[Candidate]:
    """Those that stood on `parent`; of many problems, on what it says of just these."""
    if not project.problems:
        return candidates.filter(parent=parent)
    rows = candidates.filter(experiment__problems=problems).values_list("pk", "parent")
    return candidates.filter(pk__in=[pk for pk, base in rows if is_alike(project, base, parent, problems)])


def _dead_end(idea: Idea, patch: str = "") -> Refusal | None:
    """What a person ruled out: by its techniques; a free-form change by what it says and edits."""
    if idea.kind in NOT_PROPOSED_AGAIN:
        return None
    names = set(idea.techniques)
    near = ("request__verdict__experiment", "request__candidate__diff")
    for lesson in idea.project.lessons.dead_ends().select_related(*near):
        request = lesson.request
        pointer = request.verdict.experiment if request else None
        if names & set(lesson.names):
            return Refusal(f"a dead end: {lesson.text}", pointer)
        rejected = Said(lesson.about, request.candidate.diff.patch if request and patch else "")
        if likeness := _likeness(idea, lesson, rejected, patch):
            return Refusal(f"a dead end ({likeness:.0%} alike): {lesson.text}", pointer)
    return None


def _same_fingerprint(idea: Idea) -> Experiment | None:
    """The experiment of any thread of the project that tests or tested exactly this on this head.

    Of an idea in words on whatever head, but for a discard that no longer holds for this one: its time has come.
    """
    twins = Idea.objects.filter(thread__project=idea.project, fingerprint=idea.fingerprint)
    twins = twins.exclude(pk=idea.pk).exclude(state=Idea.State.REFUSED)
    found = _settled(idea.project, own=False).filter(candidate__idea__in=twins)
    if idea.kind == Idea.Kind.CHANGE and found:
        elsewhere = found.exclude(candidate__parent=idea.thread.head)
        discards = Lesson.objects.filter(experiment__in=elsewhere).exclude(assumption={})
        held = {lesson.pk for lesson in held_discards(idea.project, idea.thread.head)}
        found = found.exclude(lesson__in=discards.exclude(pk__in=held))
    return found.first()


def _discarded(idea: Idea) -> Refusal | None:
    """It was settled against, and what that assumed still holds for this head."""
    steps, catalogue = steps_of(idea.steps), catalogue_of(idea.project)
    for lesson in held_discards(idea.project, idea.thread.head):
        if is_near(catalogue, steps, steps_of(lesson.techniques)) and _is_retune(lesson) == (idea.kind == "retune"):
            return _refused_by(lesson, "it was discarded")
        if likeness := _likeness(idea, lesson, Said(lesson.about)):
            return _refused_by(lesson, f"its like ({likeness:.0%} alike) was discarded")
    return None


def _refused_by(lesson: Lesson, why: str) -> Refusal:
    where = f" in {lesson.experiment}" if lesson.experiment else ""
    assumed = lesson.assumes
    until = f"; worth another look once {assumed.words()}" if assumed else ""
    return Refusal(f"{why}{where}: {lesson.text}{until}", lesson.experiment)


def _same_words(idea: Idea) -> Refusal | None:
    """A free-form change that says what another on this head says, in nearly the same words."""
    for earlier in _changes_on(idea.project, idea.thread.head):
        if earlier.pk != idea.pk and (likeness := repeats(_said(idea), _said(earlier))):
            experiment = _experiment(earlier)
            what = str(experiment) if experiment else f"idea {earlier.number} of {earlier.thread}"
            return Refusal(f"{likeness:.0%} alike: {what} tests or tested it on this head", experiment)
    return None


def _there_already(idea: Idea, head: str, patch: str) -> Refusal | None:
    """A free-form change that says and does what one that the head stands on brought.

    Not by words alone: leaving a change out is told in much the same. Not by code alone: a line may help twice.
    """
    mine = _said(idea, patch)
    names = [step.technique for step in recipe_of(idea.project, head)]
    for earlier in changes(idea.project, names).values():
        before = _said(earlier, earlier.candidate.diff.patch)
        likeness = repeats(mine, before)
        if likeness and alike_in_words(mine.words, before.words) >= LIKE_WORDS:
            experiment = _experiment(earlier)
            return Refusal(f"{likeness:.0%} alike: {experiment or earlier} brought it, and the head has it", experiment)
    return None


def _changes_on(project: Project, head: str) -> Iterator[Idea]:
    """Free-form changes of any thread on this head: settled, under way, or about to be."""
    changes = Idea.objects.filter(thread__project=project, kind=Idea.Kind.CHANGE).exclude(state=Idea.State.REFUSED)
    if not project.problems:
        changes = changes.filter(Q(candidate__parent=head) | Q(candidate=None, thread__head=head))
    known = set(_settled(project, own=True).filter(project=project).values_list("pk", flat=True))
    for idea in changes.select_related("thread__project", "candidate__experiment").order_by("pk"):
        experiment = _experiment(idea)
        if (experiment is None or experiment.pk in known) and base_of(idea, head) == head:
            yield idea


def _experiment(idea: Idea) -> Experiment | None:
    candidate: Candidate | None = getattr(idea, "candidate", None)
    return getattr(candidate, "experiment", None) if candidate else None


def _likeness(idea: Idea, lesson: Lesson, before: Said, patch: str = "") -> float:
    """Of two free-form changes; 0 where one is a technique of the catalogue."""
    if idea.kind != Idea.Kind.CHANGE or not lesson.is_free_form:
        return 0.0
    return repeats(_said(idea, patch), before)


def _said(idea: Idea, patch: str = "") -> Said:
    return Said(f"{idea.hypothesis}\n{idea.plan}", patch)


def _is_retune(lesson: Lesson) -> bool:
    candidate = lesson.experiment.candidate if lesson.experiment else None
    return candidate is not None and candidate.idea.kind == Idea.Kind.RETUNE
