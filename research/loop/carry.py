"""Verdicts that outlive a moved `main`: of many problems, a gain says nothing of those that it does not touch.

Where `main` still says of its problems what they were measured on, a stale request is opened again with the same change
as a commit on `main`. No trial is repeated: the question and its answer are the same. Used by steps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

from django.db import transaction

from benchmarks.catalogue import Step
from research.loop.commit import keep_candidate, message_of
from research.loop.memory import recipe_of, steps_of
from research.loop.problems import is_alike
from research.models import Idea, MergeRequest, Project, Thread
from research.repository import Conflict, Repository

State = MergeRequest.State


class Carried(NamedTuple):
    """A stale request, and its change as a commit on what it stands on now."""

    request: MergeRequest
    base: str
    commit: str
    recipe: tuple[Step, ...]


def carry(thread: Thread) -> bool:
    """Open again what was measured on what `main` still says, one on top of the other; the head goes to the last.

    All of the head's stack or nothing: where a part of it has to be measured again, the whole is. True where rows
    changed.
    """
    project = thread.project
    repository = Repository(project.repository_path)
    stale = _stale(thread)
    found = list(_carried(project, repository, stale)) if stale else []
    left = {request.pk for request in _stack(thread, stale)} - {one.request.pk for one in found}
    if not found or left:
        return False
    with transaction.atomic():
        for one in found:
            measured = one.request.verdict.experiment.candidate
            candidate = keep_candidate(_idea(one), one.base, one.commit, one.recipe, carried_from=measured)
            if candidate is None or not one.request.carry(candidate):
                transaction.set_rollback(True)
                return False
        where = f"nothing of {', '.join(_problems(found))} changed on main: what was measured there stands"
        thread.advance_head(thread.head, found[-1].commit, where)
    for one in found:
        repository.keep(one.request.candidate.ref, one.commit)
    return True


def _stale(thread: Thread) -> list[MergeRequest]:
    """Left behind by `main`, not tried again since, and not turned down by anybody."""
    if not thread.project.problems:
        return []
    dead = {str(step["technique"]) for row in thread.project.lessons.dead_ends() for step in row.techniques}
    rows = thread.merge_requests.filter(state=State.STALE, successors=None).order_by("pk")
    rows = rows.select_related("candidate__idea", "verdict__experiment")
    return [request for request in rows if not dead & set(request.candidate.idea.techniques)]


def _stack(thread: Thread, stale: list[MergeRequest]) -> list[MergeRequest]:
    """The stale requests that the head consists of."""
    by_commit = {request.commit: request for request in stale}
    found, at = [], thread.head
    while at in by_commit:
        found.append(by_commit[at])
        at = by_commit[at].base
    return found


def _carried(project: Project, repository: Repository, stale: list[MergeRequest]) -> Iterator[Carried]:
    tip, recipe = project.champion, recipe_of(project, project.champion)
    for request in stale:
        problems = request.verdict.experiment.problems
        if not is_alike(project, request.base, tip, problems):
            continue
        message, when = message_of(request.candidate.idea), request.created
        try:
            if repository.is_ancestor(request.base, tip):
                commit = repository.merge(tip, request.commit, message, when)
            else:  # what it stood on was turned down: without that
                commit = repository.rebase(request.base, request.commit, tip, message, when)
        except Conflict:
            continue
        if not is_alike(project, request.commit, commit, problems):
            continue
        steps = steps_of(request.candidate.idea.steps)
        recipe = on_top(recipe, steps)
        yield Carried(request, tip, commit, recipe)
        tip = commit


def on_top(recipe: tuple[Step, ...], steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """A recipe with these steps: a setting that is there already is replaced in its place."""
    new = {step.technique: step for step in steps}
    return (*(new.pop(step.technique, step) for step in recipe), *new.values())


def _idea(one: Carried) -> Idea:
    """The same change on `main`: an idea of its own, as a candidate has one."""
    before = one.request.candidate.idea
    thread = one.request.thread
    return Idea.add(
        thread, Idea.next_number(thread), kind=Idea.Kind.COMBINATION, title=before.name[:160],
        hypothesis=before.hypothesis, expected_effect=before.expected_effect, steps=before.steps, files=before.files,
        tags=before.tags, trusted=before.trusted,
        fingerprint=hashlib.sha256(f"carry {one.commit} {one.base}".encode()).hexdigest(),
    )  # fmt: skip


def _problems(found: list[Carried]) -> list[str]:
    return sorted({name for one in found for name in one.request.verdict.experiment.problems})
