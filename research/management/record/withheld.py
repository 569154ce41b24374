"""What of a project is not its own to pass on: problems that somebody else wrote and whose licence may forbid it.

A record never holds a definition, a workload or a start's solution. What is left are diffs, which quote what they
change: of these problems only added lines are told.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from unidiff.patch import PatchedFile, PatchSet


def lines_of(patch: str, withheld: Collection[str]) -> list[str]:
    """The lines of a diff; of files of these problems what was added alone, which no tool can apply."""
    if not withheld:
        return patch.splitlines()
    return [line for file in PatchSet(patch) for line in (_added if _folder(file) in withheld else _whole)(file)]


def _folder(file: PatchedFile) -> str:
    return str(file.path).partition("/")[0]


def _whole(file: PatchedFile) -> Iterator[str]:
    yield from str(file).splitlines()


def _added(file: PatchedFile) -> Iterator[str]:
    yield f"--- a/{file.path}"
    yield f"+++ b/{file.path}"
    last = -1
    for hunk in file:
        for line in hunk:
            if line.is_added and line.target_line_no is not None:
                if line.target_line_no != last + 1:
                    yield f"@@ added from line {line.target_line_no} on; what stood there is left out @@"
                yield "+" + line.value.rstrip("\r\n")
                last = line.target_line_no
