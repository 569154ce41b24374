"""The files that a session reads and edits: in memory, never on a disk.

What stands in a workspace is the commit that the session reads, and the edits of its transcript in order; so a process
that takes a session over has the same files as the one that died.
"""

from __future__ import annotations

import ast
import contextlib
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from difflib import get_close_matches
from fnmatch import fnmatch
from pathlib import PurePosixPath

from benchmarks.catalogue import Sources
from benchmarks.edits import constant
from benchmarks.syntax import parse
from research.researchers.llm.wire import FormatError

LARGEST_FILE = 200_000  # characters
MOST_FILES, MOST_LISTED, MOST_LINES, MOST_HITS, LONGEST_LINE = 40, 200, 600, 60, 400
SEARCH_SECONDS = 2.0
PLAIN = re.compile(r"[A-Za-z0-9_./-]{1,200}")  # a name is shown in prompts: it must not be able to say anything


class ToolRefused(Exception):
    """A call outside what is allowed. The text is what the model is told; the refusal is recorded."""


class NotThere(FormatError):
    """A replacement whose old text does not stand in the file once. A slip, told as any answer of a tool."""


class Workspace:
    def __init__(self, sources: Mapping[str, str], editable: Collection[str], protected: Collection[str]) -> None:
        self.before, self.sources = dict(sources), dict(sources)
        self.editable, self.protected = tuple(editable), tuple(protected)

    def listing(self, folder: str = "") -> str:
        """Files with their length, of a folder alone where one is named; folders, where there are many files."""
        below = f"{folder.rstrip('/')}/" if folder else ""
        found = {path: text for path, text in sorted(self.sources.items()) if path.startswith(below)}
        if not folder and len(found) > MOST_LISTED:
            counts = Counter(path.partition("/")[0] for path in found)
            return "\n".join(f"{name}/  {count} files" if name not in found else name for name, count in counts.items())
        rows = (f"{path}  {len(text.splitlines())} lines" for path, text in found.items())
        return "\n".join(rows) or "no such folder"

    def read(self, path: str, first: int = 1, last: int = 0) -> str:
        """Lines with their numbers, from `first` to `last` (0: as many as one answer holds)."""
        lines = self._text(path).splitlines()
        first = max(1, first)
        end = min(last if last >= first else len(lines), first + MOST_LINES - 1, len(lines))
        rows = [f"{number}\t{lines[number - 1][:LONGEST_LINE]}" for number in range(first, end + 1)]
        more = f"\n({len(lines) - end} more lines from {end + 1} on)" if end < len(lines) else ""
        return ("\n".join(rows) or "(no such lines)") + more

    def search(self, pattern: str) -> str:
        """Lines that hold a text, or match a regular expression that cannot take for ever."""
        match, note = _matcher(pattern)
        rows, until = [], time.monotonic() + SEARCH_SECONDS
        for path, number, line in self._lines():
            if match(line[:LONGEST_LINE]):
                rows.append(f"{path}:{number}: {line.strip()[:LONGEST_LINE]}")
            if time.monotonic() > until:
                note += f"\n(stopped after {SEARCH_SECONDS:g} s, in {path} at line {number})"
                break
        more = f"\n({len(rows) - MOST_HITS} more)" if len(rows) > MOST_HITS else ""
        return ("\n".join(rows[:MOST_HITS]) or "nothing found") + more + note

    def replace(self, path: str, old: str, new: str) -> str:
        """Exchange a piece of text that stands in the file exactly once."""
        text = self._text(self._allowed(path))
        if not old:
            raise FormatError("old is empty; to write a whole file use write_file")
        if (times := text.count(old)) != 1:
            raise NotThere(f"old stands {times} times in {path}, not once; give more lines around it, exactly")
        return self._keep(path, text.replace(old, new))

    def editable_paths(self) -> list[str]:
        return [path for path in sorted(self.sources) if self._may_edit(path)]

    def constants(self, paths: Collection[str] = ()) -> dict[str, dict[str, float]]:
        """path -> upper-case name -> value, of the numbers that the modules of these editable files set; of all."""
        editable = (path for path in self.sources if (not paths or path in paths) and self._may_edit(path))
        found = {path: _numbers(self.sources[path]) for path in editable}
        return {path: numbers for path, numbers in found.items() if numbers}

    def set_constant(self, name: str, value: float, path: str = "") -> str:
        """Give a constant another number. `path` only where several files have one of that name."""
        places = {at: numbers[name] for at, numbers in self.constants().items() if name in numbers}
        if path:
            self._text(self._allowed(path))
        elif len(places) > 1:
            raise NotThere(f"{name} stands in {', '.join(places)}; say which by path")
        at = path or next(iter(places), "")
        if at not in places:
            raise NotThere(f"there is no constant {name[:60]!r} that holds a number{f' in {path}' if path else ''}")
        before = places[at]
        if isinstance(before, int) and value != int(value):
            raise NotThere(f"{name} is a whole number, {before}; {value:g} is none")
        given = int(value) if isinstance(before, int) else float(value)
        if given == before:
            raise NotThere(f"{name} is {before} already")
        self._keep(at, constant(self.sources[at], name, given))
        return f"{name} in {at} is {given!r} now; it was {before!r}"

    def write(self, path: str, text: str) -> str:
        """A whole file, new or in the place of the old one."""
        self._allowed(path)
        beside = sum(PurePosixPath(known).parent == PurePosixPath(path).parent for known in self.sources)
        if path not in self.sources and beside >= MOST_FILES:
            raise ToolRefused(f"there are {MOST_FILES} files already beside it, which is as many as there may be")
        return self._keep(path, text)

    def changed(self) -> Sources:
        """path -> new text of what differs from the commit."""
        return {path: text for path, text in self.sources.items() if self.before.get(path) != text}

    def _lines(self) -> Iterator[tuple[str, int, str]]:
        for path, text in sorted(self.sources.items()):
            for number, line in enumerate(text.splitlines(), start=1):
                yield path, number, line

    def _keep(self, path: str, text: str) -> str:
        if len(text) > LARGEST_FILE:
            raise ToolRefused(f"{path} would have {len(text):,} characters; a file may have {LARGEST_FILE:,}")
        if "\0" in text:
            raise ToolRefused(f"{path} would hold a NUL character")
        self.sources[path] = text.encode("utf-8", "replace").decode()
        return f"{path} has {len(text.splitlines())} lines now"

    def _text(self, path: str) -> str:
        if path not in self.sources:
            known = sorted(self.sources)
            if len(known) > MOST_FILES:
                beside = [other for other in known if PurePosixPath(other).parent == PurePosixPath(path).parent]
                known = beside[:MOST_FILES] or get_close_matches(path[:120], known, 5, 0.3)
            raise ToolRefused(f"there is no file {path[:120]!r} here; there are {', '.join(known) or 'none like it'}")
        return self.sources[path]

    def _may_edit(self, path: str) -> bool:
        try:
            return bool(self._allowed(path))
        except ToolRefused:
            return False

    def _allowed(self, path: str) -> str:
        """The path, where it may be edited."""
        pure = PurePosixPath(path)
        if not PLAIN.fullmatch(path) or pure.is_absolute() or ".." in pure.parts or str(pure) != path:
            raise ToolRefused(f"{path[:120]!r} is no path inside the tree")
        if any(part.startswith(".") for part in pure.parts):
            raise ToolRefused(f"{path[:120]!r} is hidden; only plain files may be written")
        if any(fnmatch(path, pattern) for pattern in self.protected):
            raise ToolRefused(f"{path} is protected: it belongs to the judge, and no change may touch it")
        if not any(fnmatch(path, pattern) for pattern in self.editable):
            raise ToolRefused(f"{path[:120]} may not be edited; editable are {', '.join(self.editable)}")
        if any(str(parent) in self.sources for parent in pure.parents) or any(
            known.startswith(f"{path}/") for known in self.sources
        ):
            raise ToolRefused(f"{path[:120]} would be a file and a folder at once")
        return path


def _numbers(text: str) -> dict[str, float]:
    """The upper-case constants of a module that hold a plain number; none where it is no valid Python."""
    try:
        body = parse(text).body
    except SyntaxError:
        return {}
    found: dict[str, float] = {}
    for node in body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            with contextlib.suppress(ValueError):
                value = ast.literal_eval(node.value)
                if name.isupper() and isinstance(value, int | float) and not isinstance(value, bool):
                    found[name] = value
    return found


def _matcher(pattern: str) -> tuple[Callable[[str], object], str]:
    """Whether a line matches, and a note. What could take for ever, or is no expression, is looked for as it stands.

    The engine of `re` holds the whole process while it tries: two open repeats over a line of 400 characters are 0.2 s
    at worst, three are minutes, and a row of alternatives in brackets doubles with each.
    """
    if len(pattern) <= 200 and not _is_costly(pattern):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of sets that a later version may read otherwise
                return re.compile(pattern).search, ""
        except (re.error, OverflowError, RecursionError):
            pass
    plain = not set(pattern) & set("*+?{}[]()|^$\\")
    return lambda line: pattern in line, "" if plain else "\n(looked for as it stands, not as an expression)"


def _is_costly(pattern: str) -> bool:
    nested = re.search(r"[*+?}]\)?[*+{]|\)[*+?{]|\\\d|\(\?P=", pattern)
    optional = pattern.count("?") - pattern.count("(?")
    return bool(nested) or len(re.findall(r"[*+{]", pattern)) > 2 or optional > 4 or pattern.count("|") > 8
