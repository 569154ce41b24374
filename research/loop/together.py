"""Bring branches onto `main`: by git's three-way merge, else by applying their techniques again. Used by steps."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import transaction

from benchmarks.catalogue import Step
from benchmarks.edits import DoesNotApply
from research.loop.commit import adopt_commit, commit_candidate, message_of
from research.loop.memory import catalogue_of, recipe_of, sources_of
from research.models import Branch, Candidate, Event, Idea, Lesson, Thread
from research.repository import Conflict, Repository


def bring_together(
    idea: Idea, main: str, heads: Sequence[str], steps: tuple[Step, ...], branches: Sequence[Branch] = ()
) -> Candidate | None:
    """Make the heads, merged onto `main` one after the other, the idea's candidate.

    Where git conflicts, the techniques are applied again to `main`; where they do not apply either, the idea is
    refused. A conflict is remembered with its lines in both cases. None: the idea says why it was refused.
    """
    repository = Repository(idea.project.repository_path)
    try:
        commit = merged(repository, main, heads, idea)
    except Conflict as conflict:
        return apply_again(idea, main, steps, conflict, branches=branches)
    return adopt_commit(idea, main, commit, (*recipe_of(idea.project, main), *steps), branches)


def merged(repository: Repository, main: str, heads: Sequence[str], idea: Idea) -> str:
    """The commit of all heads on `main`; a head that stands on what is there already is taken as it is."""
    at = main
    for head in heads:
        if repository.is_ancestor(at, head):
            at = head
        elif not repository.is_ancestor(head, at):
            at = repository.merge(at, head, message_of(idea), idea.created)
    return at


def apply_again(
    idea: Idea,
    main: str,
    steps: tuple[Step, ...],
    conflict: Conflict | None = None,
    why: str = "",
    branches: Sequence[Branch] = (),
) -> Candidate | None:
    """Apply techniques to `main`'s sources. `why`: what kept git from merging, where it was no conflict."""
    project = idea.project
    said = str(conflict) if conflict else why
    if conflict is not None and not steps:
        refuse(idea, main, f"{said}; there is no recipe to apply again", conflict)
        return None
    try:
        sources = catalogue_of(project).apply(dict(sources_of(project.repository_path, main)), steps)
    except DoesNotApply as error:
        refuse(idea, main, f"{said}; applying its techniques again failed too: {error}", conflict)
        return None
    candidate = commit_candidate(idea, main, sources, (*recipe_of(project, main), *steps), branches)
    if conflict is not None and candidate is not None:
        words = f"{said}: git could not merge {idea.name}; the techniques were applied again"
        remember(idea, main, words, conflict, [])
    return candidate


def follow(thread: Thread, note: str) -> bool:
    """The head goes to the thread's newest open request on `main`, to `main` itself where there is none."""
    champion = thread.project.champion
    for request in thread.merge_requests.open().order_by("-pk"):
        if request.stack()[0].base == champion:
            return thread.advance_head(thread.head, request.commit, f"{note}; the gain that is open on main stands")
    return thread.advance_head(thread.head, champion, note)


def refuse(idea: Idea, main: str, why: str, conflict: Conflict | None) -> None:
    """A combination that cannot be made teaches that its techniques do not stand together."""
    with transaction.atomic():
        idea.refuse(why)
        remember(idea, main, why, conflict, idea.steps)
        Event.record(Event.Kind.LESSON, f"lesson: these do not stand together, {idea.name}", thread=idea.thread)


def remember(idea: Idea, main: str, text: str, conflict: Conflict | None, techniques: list[dict[str, object]]) -> None:
    """The conflict as a lesson, once; it counts against `techniques`: none where they were applied again."""
    Lesson.objects.get_or_create(
        project=idea.project, thread=idea.thread, kind=Lesson.Kind.CONFLICT, base=main, text=text,
        defaults={"techniques": techniques, "lines": conflict.lines if conflict else []},
    )  # fmt: skip
