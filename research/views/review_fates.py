"""What a merge would do to the other threads of its project."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from research.models import MergeRequest, Thread
from research.repository import Conflict, GitError, Repository


@dataclass(frozen=True)
class Fate:
    """What a merge does to another thread."""

    thread: Thread
    what: str
    tone: str  # good, warn or quiet


def fates(request: MergeRequest) -> list[Fate]:
    """For every other thread of the project."""
    threads = request.project.threads.exclude(pk=request.thread_id).order_by("number")
    return [_fate(request, thread) for thread in threads]


def _fate(request: MergeRequest, thread: Thread) -> Fate:
    path, new = request.project.repository_path, request.commit
    if _is_ancestor(path, thread.head, new):
        return Fate(thread, "follows main; it has no open gain of its own", "good")
    if _is_ancestor(path, new, thread.head):
        return Fate(thread, "stands on this already", "good")
    try:
        conflict = _conflict(path, new, thread.head)
    except GitError as error:
        return Fate(thread, f"cannot be told: {error}", "warn")
    again = "is measured against it"
    if conflict:
        what = f"its gains conflict with it in {', '.join(conflict)}; its techniques are applied again, that {again}"
        return Fate(thread, what, "warn")
    return Fate(thread, f"its gains merge cleanly with it; the combination {again}", "good")


@lru_cache(maxsize=1024)
def _is_ancestor(path: Path, old: str, new: str) -> bool:
    """Commits do not change, so neither does the answer."""
    return old == new or Repository(path).is_ancestor(old, new)


@lru_cache(maxsize=1024)
def _conflict(path: Path, ours: str, theirs: str) -> tuple[str, ...]:
    """The files in which a three-way merge conflicts; none where it is clean."""
    try:
        Repository(path).merged_tree(ours, theirs)
    except Conflict as conflict:
        return tuple(conflict.files)
    return ()
