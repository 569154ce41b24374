"""Idea -> Candidate on the thread's head; refused before any device time where it must be."""

from __future__ import annotations

from benchmarks.edits import DoesNotApply
from research.loop import submit
from research.loop.commit import commit_candidate
from research.loop.memory import steps_of, view_of
from research.models import Thread
from research.researchers import RESEARCHERS


def step(thread: Thread) -> bool:
    """Implement the oldest proposed idea on the thread's head, unless an experiment of the thread is under way."""
    if thread.experiments.running().exists() or thread.waiting_candidate:
        return False
    idea = thread.ideas.ahead().order_by("number").first()
    if idea is None:
        return False
    if hasattr(idea, "submission"):
        submit.take(idea)
        return True
    view = view_of(thread, idea.number)
    try:
        sources, recipe = RESEARCHERS[idea.researcher].implement(view, idea.kind, steps_of(idea.steps))
    except DoesNotApply as error:
        idea.refuse(f"it does not apply to the head: {error}")
        return True
    commit_candidate(idea, thread.head, sources, recipe)
    return True
