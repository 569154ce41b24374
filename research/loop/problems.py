"""A benchmark of many problems: one tree, a folder a problem. What a change touches, and which commits differ in that.

An experiment measures what its two commits differ in, so a verdict says nothing of other problems, and stands whatever
happens to them. In a benchmark of one problem every list here is empty, and two commits are alike only where they are
the same. Used by steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from research.models import Project
from research.repository import Repository


def astray(project: Project, paths: Iterable[str]) -> str:
    """Why these paths cannot be changed together with a verdict; empty where they can.

    What lies in no problem's folder may bear on any of them, and a trial measures those that are touched.
    """
    others = [path for path in paths if not project.touched([path])] if project.problems else []
    return f"{', '.join(others[:5])}: in the folder of no problem, so no trial would measure it" if others else ""


def differing(project: Project, one: str, other: str) -> list[str]:
    """What is measured to compare two commits: the problems that differ; the first alone where none does."""
    if not project.problems:
        return []
    mine, theirs = entries(project.repository_path, one), entries(project.repository_path, other)
    return [name for name in project.problems if mine.get(name) != theirs.get(name)] or project.problems[:1]


def spread(project: Project, problems: Sequence[str]) -> list[str]:
    """These problems, in an order whose every beginning stands for all of them: of a floor a pair measures one."""
    files = Repository(project.repository_path).files(project.start_commit) if len(problems) > 1 else {}
    return project.contract.spread(files, problems) if files else list(problems)


def ground_of(project: Project, commit: str, problems: Iterable[str]) -> str:
    """What a change of these problems stands on: the commit; of many, what it says of them, and of what is none's."""
    if not project.problems:
        return commit
    others = set(project.problems) - set(problems)
    at = entries(project.repository_path, commit)
    return " ".join(f"{name}={at[name]}" for name in sorted(at) if name not in others)


def is_alike(project: Project, one: str, other: str, problems: Iterable[str]) -> bool:
    """Whether a change of these problems stands on the same in both commits: whether it is the same question there."""
    return one == other or ground_of(project, one, problems) == ground_of(project, other, problems)


@lru_cache(maxsize=4096)
def entries(repository: Path, commit: str) -> dict[str, str]:
    """Name at the top of a commit's tree -> git's hash of what it holds."""
    return Repository(repository).entries(commit)
