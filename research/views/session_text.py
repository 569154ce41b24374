"""What models and tools say, as text that is safe to look at: whole where it is short, else its beginning.

Escaping is the template's. Arguments of a tool call are shown one by one, edits as the change that they make.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import unified_diff
from functools import cached_property
from typing import Any

from research.logtext import said
from research.templatetags.lab import duration, percent
from research.views.difftext import FileDiff

FOLD = 1_600  # characters: what is longer is folded to its beginning
FOLD_LINES = 24
BEGINNING, BEGINNING_LINES = 700, 10
WHOLE = 400_000  # characters shown of one message at most
NAME = 60
ARGUMENTS = 20  # of one call that are shown


# How an idea's numbers are written
FORMS: dict[str, Callable[[Any], str]] = {"expected_effect": percent, "cost_guess": duration}


@dataclass(frozen=True)
class Text:
    """`shown` is all of it, or its beginning where it is `folded`."""

    shown: str
    characters: int
    folded: bool


@dataclass(frozen=True)
class Argument:
    name: str
    text: Text
    is_code: bool  # several lines: a block of its own


@dataclass(frozen=True)
class ToolUse:
    """A tool call as the model wrote it; `number` is its place in the message."""

    number: int
    id: str
    name: str
    arguments: tuple[Argument, ...]
    change: FileDiff | None = None  # of an edit
    malformed: Text | None = None  # arguments that are no JSON object

    @property
    def brief(self) -> str:
        """One line: the short arguments."""
        short = [f"{a.name}={a.text.shown}" for a in self.arguments if not a.is_code and not a.text.folded]
        return ", ".join(short)[:160]


def text_of(content: str, characters: int | None = None) -> Text:
    """`characters` is the length of the whole where `content` is only its beginning."""
    size = len(content) if characters is None else characters
    if size <= FOLD and content.count("\n") < FOLD_LINES:
        return Text(said(content), size, False)
    beginning = "\n".join(content[:BEGINNING].split("\n")[:BEGINNING_LINES])
    return Text(said(beginning), size, True)


def whole(content: str) -> str:
    text = said(content[:WHOLE])
    return text if len(content) <= WHOLE else f"{text}\n… cut {len(content) - WHOLE:,} characters"


def tool_uses(calls: Any) -> list[ToolUse]:
    """Of a message's `tool_calls`; whatever they hold."""
    rows = calls if isinstance(calls, list) else []
    return [_use(number, row) for number, row in enumerate(rows) if isinstance(row, dict)]


def argument_text(calls: Any, number: int, name: str) -> str | None:
    """The whole of one argument, or of all that is no JSON (`name` empty)."""
    if not isinstance(calls, list) or not 0 <= number < len(calls) or not isinstance(calls[number], dict):
        return None
    arguments, raw = _parsed(calls[number])
    if arguments is None:
        return raw if not name else None
    return _written(arguments[name]) if name in arguments else None


def _use(number: int, row: Mapping[str, Any]) -> ToolUse:
    name, id = said(str(row.get("name", ""))[:NAME]), str(row.get("id", ""))[:120]
    arguments, raw = _parsed(row)
    if arguments is None:
        return ToolUse(number, id, name, (), None, text_of(raw))
    change = _change(arguments)
    shown = {key: value for key, value in arguments.items() if change is None or key not in ("old", "new")}
    rows = tuple(_argument(str(key), value) for key, value in list(shown.items())[:ARGUMENTS])
    return ToolUse(number, id, name, rows, change)


def _parsed(row: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """The arguments, and how they were written; None where they are no JSON object."""
    raw = row.get("arguments", "")
    if isinstance(raw, dict):
        return raw, ""
    try:
        found = json.loads(raw or "{}")
    except (ValueError, TypeError, RecursionError):
        return None, str(raw)
    return (found, str(raw)) if isinstance(found, dict) else (None, str(raw))


def _argument(name: str, value: Any) -> Argument:
    text = _written(value)
    return Argument(said(name[:NAME]), text_of(text), "\n" in text or len(text) > 120)


def _written(value: Any) -> str:
    """A text as it is; a list of simple things on one line; all else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and not any(isinstance(each, dict | list) for each in value):
        return ", ".join(str(each) for each in value)
    return json.dumps(value, indent=2, ensure_ascii=False)


def _change(arguments: Mapping[str, Any]) -> FileDiff | None:
    """An exact replacement as a diff of its two texts."""
    old, new, path = (arguments.get(name) for name in ("old", "new", "path"))
    if not (isinstance(old, str) and isinstance(new, str)):
        return None
    return diff_of(path if isinstance(path, str) else "", old, new)


def diff_of(path: str, old: str, new: str, number: int = 0) -> FileDiff:
    lines = list(unified_diff(old[:WHOLE].splitlines(), new[:WHOLE].splitlines(), n=3, lineterm=""))[2:]
    added, removed = (sum(line.startswith(sign) for line in lines) for sign in "+-")
    return FileDiff(number, path, text="\n".join(lines), added=added, removed=removed)


@dataclass(frozen=True)
class Answer:
    """What a session was for. An idea, the summary of a change and its files, or the advice of a review."""

    content: Mapping[str, Any]

    @cached_property
    def title(self) -> str:
        """One line of it."""
        for name in ("title", "summary", "advice"):
            if isinstance(found := self.content.get(name), str) and found:
                return said(found).split("\n")[0][:200]
        return "an answer"

    @cached_property
    def rows(self) -> list[Argument]:
        shown = {key: value for key, value in self.content.items() if key not in ("title", "files", "findings")}
        words = {key: FORMS[key](value) if key in FORMS else value for key, value in shown.items()}
        return [_argument(str(key), value) for key, value in words.items() if value not in (None, "", [], {})]

    @cached_property
    def findings(self) -> list[dict[str, str]]:
        """Of a review: severity, text and where."""
        found = self.content.get("findings")
        rows = [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
        names = ("severity", "text", "path", "line")
        return [{name: said(str(row.get(name) or "")[:2_000]) for name in names} for row in rows[:50]]

    @property
    def files(self) -> dict[str, str]:
        """Of a change: path -> new text."""
        found = self.content.get("files")
        return {str(path): str(text) for path, text in found.items()} if isinstance(found, dict) else {}


def answer_of(content: Any) -> Answer | None:
    return Answer(content) if isinstance(content, dict) else None
