"""Two techniques for each problem of the data: each sets one constant of its solution. The family is the name's end."""

from __future__ import annotations

from pathlib import Path

from benchmarks import edits
from benchmarks.catalogue import Catalogue, Sources, Technique, Tunables
from tests.benchmarks.toy_problems import trees


def for_data(data: Path) -> Catalogue:
    return Catalogue([_set(name, constant) for name in trees.problems(data) for constant in ("TILE", "FUSE")])


def _set(problem: str, constant: str) -> Technique:
    path = f"{problem}/solution.py"

    def apply(sources: Sources, _: Tunables) -> Sources:
        return sources | {path: edits.constant(sources[path], constant, 2.0)}

    return Technique(
        name=f"{problem}_{constant.lower()}",
        title=f"another {constant} of {problem}",
        family=problem.rpartition("_")[2],
        hypothesis=f"Another {constant} makes {problem} faster.",
        source="the toy's own manual",
        apply=apply,
        prior_gain=0.05,
        prior_sd=0.1,
    )
