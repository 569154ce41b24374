"""What a change itself became between two patch sets, without what `main` brought in between.

The older change is done again on the newer one's base (git's three-way merge); the rest of the way to the newer
commit is the interdiff. Files in which that conflicts are shown as the difference of the two patches, as `git
range-diff` does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import unified_diff
from functools import lru_cache
from pathlib import Path

from research.repository import GitError, Repository
from research.views.difftext import FileDiff, files_of

RANGES = re.compile(r"^@@ -\S+ \+\S+ @@", re.MULTILINE)  # of a patch: they move with `main`
CONTEXT = 3


@dataclass(frozen=True)
class Change:
    """One patch set, as far as a comparison needs it."""

    base: str
    head: str
    patch: str


@dataclass(frozen=True)
class Interdiff:
    """`patches` names the files whose two patches are compared, not their lines."""

    files: tuple[FileDiff, ...]
    patches: frozenset[str]
    why: str = ""  # the patches are compared, in words

    @property
    def added(self) -> int:
        return sum(file.added for file in self.files)

    @property
    def removed(self) -> int:
        return sum(file.removed for file in self.files)


@lru_cache(maxsize=64)
def interdiff(path: Path, old: Change, new: Change) -> Interdiff:
    """Of two patch sets in one repository. Kept: commits do not change."""
    repository = Repository(path)
    try:
        tree, conflicts = repository.rebased_tree(old.base, old.head, new.base)
        lines = files_of(repository.diff(tree, new.head).patch)
    except GitError as error:
        return _numbered(_of_patches(old, new, None), f"the two patches are compared: {error}")
    if not conflicts:
        return _numbered(lines, "")
    clean = [file for file in lines if file.path not in conflicts]
    why = f"main changed the same lines of {', '.join(conflicts)}; there the two patches are compared"
    return _numbered(clean + _of_patches(old, new, set(conflicts)), why)


def _numbered(files: list[FileDiff], why: str) -> Interdiff:
    files = sorted(files, key=lambda file: file.path)
    for number, file in enumerate(files):
        file.number = number
    return Interdiff(tuple(files), frozenset(file.path for file in files if not file.coloured), why)


def _of_patches(old: Change, new: Change, paths: set[str] | None) -> list[FileDiff]:
    """Files whose patch is another; `paths` None: all of them."""
    before, after = ({file.path: file for file in files_of(change.patch)} for change in (old, new))
    found = []
    for path in sorted(before.keys() | after.keys()):
        if paths is not None and path not in paths:
            continue
        a, b = (RANGES.sub("@@", side[path].text).splitlines() if path in side else [] for side in (before, after))
        lines = list(unified_diff(a, b, n=CONTEXT, lineterm=""))[2:]  # without the two names
        if lines:
            added, removed = (sum(line.startswith(sign) for line in lines) for sign in "+-")
            text = "\n".join(lines)
            found.append(FileDiff(0, path, text=text, added=added, removed=removed, coloured=False))
    return found
