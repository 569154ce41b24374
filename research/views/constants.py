"""The constants of a commit: NAME = literal at the top of its Python files. What two candidates set differently.

Read from the syntax tree: nothing of a candidate is imported or run.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from benchmarks.syntax import parse
from research.repository import Repository

Place = tuple[str, str]  # path, NAME
LONGEST = 120  # characters of a value that are shown
MOST = 1_000_000  # bytes of a file that is read


@dataclass(frozen=True)
class Difference:
    path: str
    name: str
    values: Sequence[str]  # one a commit; empty where the commit has no such constant


def differing(repository: Path, commits: Sequence[str]) -> list[Difference]:
    """Constants that are not the same in all of these commits, by path and name."""
    found = [constants_of(repository, commit) for commit in commits]
    places = sorted({place for constants in found for place in constants})
    rows = [Difference(*place, [constants.get(place, "") for constants in found]) for place in places]
    return [row for row in rows if len(set(row.values)) > 1]


@lru_cache(maxsize=128)
def constants_of(repository: Path, commit: str) -> dict[Place, str]:
    """(path, NAME) -> value as it is written. A file that is no Python is left out."""
    found: dict[Place, str] = {}
    for path, content in Repository(repository).files(commit).items():
        if path.endswith(".py") and len(content) <= MOST:
            found |= {(path, name): value for name, value in _constants(content).items()}
    return found


def _constants(content: bytes) -> dict[str, str]:
    try:
        tree = parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # ValueError: a null byte
        return {}
    found = {}
    for node in tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if isinstance(target, ast.Name) and target.id.isupper():
                found[target.id] = _written(node.value)
    return found


def _written(value: ast.expr) -> str:
    try:
        text = ast.unparse(value)
    except RecursionError:
        return "…"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
