"""Threads as rows of a wall: what each does now, how far its head has come, what it cost. For one project or many."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.utils.safestring import SafeString

from research.models import Project, Thread
from research.views.frontier import Attempt, frontier_of
from research.views.now import Now, now_lines
from research.views.spent import Cost, spent_of


@dataclass(frozen=True)
class ThreadRow:
    thread: Thread
    now: Now
    spark: SafeString
    gain: float | None  # of the head over the start
    last: Attempt | None
    cost: Cost


def thread_rows(projects: Iterable[Project], threads: Iterable[Thread]) -> list[ThreadRow]:
    """A row for each thread; `projects` are theirs. Seven queries, and five for each project."""
    known = {project.pk: project for project in projects}
    frontiers = {pk: frontier_of(project) for pk, project in known.items()}
    costs = {pk: spent_of(project) for pk, project in known.items()}
    rows = list(threads)
    for thread in rows:
        thread.project = known[thread.project_id]
    lines = now_lines(rows)
    return [
        ThreadRow(
            thread, lines[thread.pk], seen.spark(thread.pk), seen.heights.get(thread.head), seen.last_of(thread.pk),
            costs[thread.project_id].threads.get(thread.pk, Cost()),
        )
        for thread in rows
        for seen in (frontiers[thread.project_id],)
    ]  # fmt: skip
