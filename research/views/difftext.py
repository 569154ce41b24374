"""A stored patch as files: paths, kinds of change, counts, and their hunks.

`files_of(patch)` only parses and is cheap; a file's `hunks` are rendered (diffrows.py) when they are first asked for.
Shown by `review/_hunks.html`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from django.utils.safestring import SafeString, mark_safe

from research.views.diffrows import Hunk, render, visible

LARGE = 400  # changed lines above which a file is shown only on demand
OCTAL = re.compile(r'\\([0-7]{3}|["\\abfnrtv])')


@dataclass
class FileDiff:
    """One file of a patch. `change` is changed, new, deleted or renamed; `number` is its place in the patch."""

    number: int
    path: str
    change: str = "changed"
    binary: bool = False
    mode: str = ""  # a change of mode, in words
    text: str = ""  # the hunks as they stand in the patch
    added: int = 0
    removed: int = 0
    content: str = ""  # git's hashes of the file before and after
    coloured: bool = True  # False where the lines are no code, as in a diff of two patches

    @property
    def changed(self) -> int:
        return self.added + self.removed

    @property
    def large(self) -> bool:
        return self.changed > LARGE

    @property
    def is_text(self) -> bool:
        return bool(self.text)

    @cached_property
    def hunks(self) -> tuple[Hunk, ...]:
        return render(self.path if self.coloured else "", self.text)

    @property
    def shown_path(self) -> SafeString:
        return mark_safe(visible(self.path))  # noqa: S308  it escapes


def files_of(patch: str) -> list[FileDiff]:
    """The files of a patch in git's format, in order. Counts what changed; renders nothing."""
    parts = re.split(r"^(?=diff --git )", patch, flags=re.MULTILINE)  # lines of hunks carry a sign before them
    sections = [part for part in parts if part.startswith("diff --git ")]
    return [_file(number, section) for number, section in enumerate(sections)]


def _file(number: int, section: str) -> FileDiff:
    head, at, hunks = section.partition("\n@@ ")
    text = f"@@ {hunks}" if at else ""
    lines = head.split("\n")
    file = FileDiff(number, _path(lines), text=text)
    for line in lines[1:]:
        if line.startswith("new file"):
            file.change = "new"
        elif line.startswith("deleted file"):
            file.change = "deleted"
        elif line.startswith("rename to"):
            file.change = "renamed"
        elif line.startswith("index "):
            file.content = line[6:]
        elif line.startswith("new mode "):
            file.mode = f"mode is now {line[9:]}"
        elif line.startswith(("Binary files ", "GIT binary patch")):
            file.binary = True
    for line in text.split("\n"):
        file.added += line.startswith("+")
        file.removed += line.startswith("-")
    return file


def _path(lines: list[str]) -> str:
    """The path that the file has now, or had before it was deleted."""
    for prefix in ("+++ ", "--- "):
        for line in lines:
            if line.startswith(prefix) and line != f"{prefix}/dev/null":
                return _unquoted(line[4:].rstrip("\t"))[2:]
    title = lines[0][len("diff --git ") :]  # a binary or empty file: both names are the same
    if title.startswith('"'):
        return _unquoted(title[: title.index('" ') + 1] if '" ' in title else title)[2:]
    return title[2 : (len(title) - 1) // 2]


def _unquoted(path: str) -> str:
    """Git quotes names with odd characters as C strings."""
    if not (path.startswith('"') and path.endswith('"')):
        return path
    named = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", '"': '"', "\\": "\\"}
    return OCTAL.sub(lambda found: named.get(found[1]) or chr(int(found[1], 8)), path[1:-1])
