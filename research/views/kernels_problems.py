"""The problems of a project on a benchmark of many: their names, families and workloads.

The project's row says which they are. What they are stands in its first commit: definitions and workloads lie there
beside the solutions, and no candidate may change them. So a board needs no prepared data. Nothing is executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from benchmarks.kernels.families import family_of
from benchmarks.kernels.formats.fields import FormatError
from benchmarks.kernels.trees import problem_in
from research.models import Project
from research.repository import GitError, Repository

UNKNOWN = "other"


@dataclass(frozen=True, eq=False)
class Known:
    """One problem as far as its files tell; without readable files it has a name alone. The same while it is kept."""

    name: str
    group: str = UNKNOWN  # the family of kernels that it belongs to
    workloads: Mapping[str, str] | None = None  # uuid -> its axes in words, in their order
    description: str = ""

    @property
    def uuids(self) -> tuple[str, ...]:
        return tuple(self.workloads or ())

    def axes(self, uuid: str) -> str:
        return (self.workloads or {}).get(uuid) or uuid


def known(project: Project) -> tuple[Known, ...]:
    """The problems of a project in the order of its row; empty for a benchmark whose tree is one."""
    names = tuple(project.problems)
    try:
        return _known(project.repository_path, project.start_commit, names)
    except GitError:  # it is being made, or was lost
        return tuple(map(Known, names))


@lru_cache(maxsize=4)
def _known(repository: Path, start: str, names: tuple[str, ...]) -> tuple[Known, ...]:
    """Kept: a commit never changes. Raises GitError."""
    files = Repository(repository).files(start) if names else {}
    return tuple(_read(files, name) for name in names)


def _read(files: Mapping[str, bytes], name: str) -> Known:
    try:
        problem = problem_in(files, name)
    except FormatError:
        return Known(name)
    all_axes = [set(workload.axes.items()) for workload in problem.workloads]
    fixed = set.intersection(*all_axes) if len(all_axes) > 1 else set()  # said of one, it says nothing
    workloads = {}
    for workload in problem.workloads:
        axes = [f"{axis} {size}" for axis, size in workload.axes.items() if (axis, size) not in fixed]
        workloads[workload.uuid] = ", ".join(axes) or workload.uuid
    return Known(name, str(family_of(problem.definition)), workloads, problem.definition.description)
