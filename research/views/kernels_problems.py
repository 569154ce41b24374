"""The problems of a project on a benchmark of many: their names, families and workloads, read from the prepared data.

A data set never changes under its id, so what was read of one is kept. Nothing is executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from benchmarks.contract import ContractError
from benchmarks.data import DataError
from benchmarks.kernels.families import family_of
from benchmarks.kernels.formats.fields import FormatError
from benchmarks.kernels.formats.loader import load_problem
from research.models import Project

UNKNOWN = "other"


@dataclass(frozen=True, eq=False)
class Known:
    """One problem as far as its files tell; without readable files it has a name alone. The same while it is kept."""

    name: str
    group: str = UNKNOWN  # its collection, or the family of kernels that it belongs to
    workloads: Mapping[str, str] | None = None  # uuid -> its axes in words, in their order
    description: str = ""

    @property
    def uuids(self) -> tuple[str, ...]:
        return tuple(self.workloads or ())

    def axes(self, uuid: str) -> str:
        return (self.workloads or {}).get(uuid) or uuid


def names_of(project: Project) -> tuple[str, ...]:
    """Empty for a benchmark whose tree is one, and where the data are not on this machine."""
    try:
        return project.contract.problems(project.data_path)
    except (OSError, ContractError, DataError, FormatError):
        return ()


def known(project: Project) -> tuple[Known, ...]:
    """The problems of a project in the order of its benchmark."""
    return _known(project.data_path, names_of(project))


@lru_cache(maxsize=4)
def _known(data: Path, names: tuple[str, ...]) -> tuple[Known, ...]:
    return tuple(_read(data / "problems" / name, name) for name in names)


def _read(folder: Path, name: str) -> Known:
    try:
        problem = load_problem(folder)
    except (OSError, FormatError):
        return Known(name)
    all_axes = [set(workload.axes.items()) for workload in problem.workloads]
    fixed = set.intersection(*all_axes) if len(all_axes) > 1 else set()  # said of one, it says nothing
    workloads = {}
    for workload in problem.workloads:
        axes = [f"{axis} {size}" for axis, size in workload.axes.items() if (axis, size) not in fixed]
        workloads[workload.uuid] = ", ".join(axes) or workload.uuid
    group = problem.collection or str(family_of(problem.definition))
    return Known(name, group, workloads, problem.definition.description)
