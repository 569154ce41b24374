"""The rows of a diff: hunks parsed from a patch, rendered as safe HTML in one column or side by side.

Rendered rows are kept by content. What a candidate wrote is data: every character is escaped, and those that hide or
reorder text are shown. Colours are classes (static/css/diff.css). What people said of a line goes below its row.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import cached_property, lru_cache
from html import escape
from itertools import zip_longest
from pathlib import PurePosixPath

from django.utils.safestring import SafeString, mark_safe
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.token import Comment, Keyword, Name, Number, Operator, String, _TokenType

LONGEST_LINE = 600  # characters shown of one line; minified code is no reading
PAIRED = 60  # lines of a block of changes within which old and new lines are paired
ALIKE = 0.5  # share of words in common that makes two lines versions of one

HEADER = re.compile(r"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@ ?(.*)$")
WORDS = re.compile(r"\d[\w.]*|\w+|\s+|.", re.DOTALL)
SIGNS = {"context": " ", "added": "+", "removed": "\N{MINUS SIGN}"}
KINDS = {" ": "context", "+": "added", "-": "removed"}
# token -> class of diff.css; the first that holds the token wins
COLOURS: tuple[tuple[_TokenType, str], ...] = (
    (Comment, "t-c"), (String, "t-s"), (Keyword, "t-k"), (Operator.Word, "t-k"), (Number, "t-m"),
    (Name.Function, "t-f"), (Name.Class, "t-f"), (Name.Decorator, "t-d"), (Name.Builtin, "t-b"),
)  # fmt: skip

# By suffix, from this table alone: Pygments' own search by file name looks through installed plug-ins every time.
LEXERS = {
    ".py": "python", ".toml": "toml", ".json": "json", ".yaml": "yaml", ".yml": "yaml", ".sh": "bash",
    ".md": "markdown", ".c": "c", ".h": "c++", ".cpp": "c++", ".cc": "c++", ".cu": "cuda", ".cuh": "cuda",
}  # fmt: skip

Span = tuple[int, int]
Anchor = tuple[str, int]  # side (old, new) and line


@dataclass
class Line:
    kind: str  # context, added, removed
    old: int | None
    new: int | None
    text: str
    unended: bool = False  # no newline at the end of the file
    words: list[Span] = field(default_factory=list)  # what changed within the line


@dataclass
class RawHunk:
    old: int
    new: int
    heading: str  # the function that git says it is in
    lines: list[Line] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """One line as it is shown. `code` is safe HTML."""

    kind: str
    old: int | None
    new: int | None
    code: str

    @property
    def anchor(self) -> Anchor:
        """What a comment on it is bound to: the new line, or the old one where it was removed."""
        return ("old", self.old or 0) if self.kind == "removed" else ("new", self.new or 0)


@dataclass(frozen=True)
class Hunk:
    """What the template shows. `skipped` lines of the new file lie between this hunk and the one above."""

    old: int
    new: int
    skipped: int
    heading: str
    rows: tuple[Row, ...]

    @cached_property
    def html(self) -> SafeString:
        """<tr>s in one column."""
        return self.markup(split=False, below={})

    @property
    def anchors(self) -> set[Anchor]:
        return {row.anchor for row in self.rows}

    def markup(self, split: bool, below: Mapping[Anchor, str]) -> SafeString:
        """<tr>s, each with what was said of its lines in a row below it. `below` is safe HTML."""
        parts = []
        for shown in _beside(self.rows) if split else ((row,) for row in self.rows):
            parts.append(_split(*shown) if len(shown) == 2 else _unified(shown[0]))
            said = "".join(below.get(row.anchor, "") for row in dict.fromkeys(shown) if row)
            if said:
                parts.append(f'<tr class="talk"><td colspan="4">{said}</td></tr>')
        return mark_safe("".join(parts))  # noqa: S308  code and talk are safe


def _beside(rows: Sequence[Row]) -> Iterator[tuple[Row | None, Row | None]]:
    """Old and new side: each block of removed lines beside the added ones that follow it."""
    removed: list[Row] = []
    added: list[Row] = []
    for row in rows:
        if row.kind == "added":
            added.append(row)
            continue
        if row.kind == "context" or added:
            yield from zip_longest(removed, added)
            removed, added = [], []
        if row.kind == "removed":
            removed.append(row)
        else:
            yield row, row
    yield from zip_longest(removed, added)


def _unified(row: Row | None) -> str:
    assert row is not None
    side, line = row.anchor
    return (
        f'<tr class="{row.kind}" data-at="{side}:{line}"><td class="n" data-n="{row.old or ""}"></td>'
        f'<td class="n" data-n="{row.new or ""}"></td>'
        f'<td class="s">{SIGNS[row.kind]}</td><td class="c">{row.code}</td></tr>'
    )


def _split(old: Row | None, new: Row | None) -> str:
    at = new or old
    assert at is not None
    cells = ""
    for row, number in ((old, old and old.old), (new, new and new.new)):
        kind = row.kind if row else "none"
        where = f' data-at="{row.anchor[0]}:{row.anchor[1]}"' if row else ""
        code = row.code if row else ""
        cells += f'<td class="n {kind}" data-n="{number or ""}"{where}></td><td class="c {kind}">{code}</td>'
    return f'<tr class="both" data-at="{at.anchor[0]}:{at.anchor[1]}">{cells}</tr>'


def parse(text: str) -> list[RawHunk]:
    hunks: list[RawHunk] = []
    old = new = 0
    for row in text.split("\n"):
        header = HEADER.match(row)
        if header:
            old, new = int(header[1]), int(header[3])
            hunks.append(RawHunk(old, new, header[5]))
        elif row[:1] == "\\" and hunks and hunks[-1].lines:
            hunks[-1].lines[-1].unended = True
        elif row[:1] in KINDS and hunks and row:
            kind = KINDS[row[0]]
            before, after = (old if kind != "added" else None), (new if kind != "removed" else None)
            hunks[-1].lines.append(Line(kind, before, after, row[1:]))
            old += kind != "added"
            new += kind != "removed"
    return hunks


@lru_cache(maxsize=128)
def render(path: str, text: str) -> tuple[Hunk, ...]:
    """Keyed by content: the same patch of a file is coloured once."""
    lexer, shown, rendered = _lexer(PurePosixPath(path).suffix.lower()), 1, []
    for hunk in parse(text):
        _mark_words(hunk.lines)
        skipped = max(0, hunk.new - shown)
        rendered.append(Hunk(hunk.old, hunk.new, skipped, hunk.heading, tuple(_rows(hunk.lines, lexer))))
        shown = max((line.new for line in hunk.lines if line.new), default=hunk.new) + 1
    return tuple(rendered)


@lru_cache
def _lexer(suffix: str) -> Lexer | None:
    name = LEXERS.get(suffix)
    return get_lexer_by_name(name, stripnl=False, ensurenl=False) if name else None


def _mark_words(lines: list[Line]) -> None:
    """Find the words that changed, between removed lines and the added ones that replaced them."""
    at = 0
    while at < len(lines):
        middle = at
        while middle < len(lines) and lines[middle].kind == "removed":
            middle += 1
        end = middle
        while end < len(lines) and lines[end].kind == "added":
            end += 1
        if at < middle < end and end - at <= PAIRED:
            _pair(lines[at:middle], lines[middle:end])
        at = max(end, at + 1)


def _pair(removed: list[Line], added: list[Line]) -> None:
    """Each old line with the first new one that is alike, in order."""
    free = 0
    for old in removed:
        for place in range(free, len(added)):
            new = added[place]
            if max(len(old.text), len(new.text)) > LONGEST_LINE:
                continue
            before, after = WORDS.findall(old.text), WORDS.findall(new.text)
            matcher = SequenceMatcher(None, before, after, autojunk=False)
            if matcher.quick_ratio() < ALIKE or matcher.ratio() < ALIKE:
                continue
            for tag, a, b, c, d in matcher.get_opcodes():
                if tag != "equal":
                    old.words += _spans(before, a, b)
                    new.words += _spans(after, c, d)
            free = place + 1
            break


def _spans(words: list[str], first: int, last: int) -> list[Span]:
    if first == last:
        return []
    start = sum(map(len, words[:first]))
    return [(start, start + sum(map(len, words[first:last])))]


def _rows(lines: list[Line], lexer: Lexer | None) -> Iterator[Row]:
    new = iter(_coloured([line.text for line in lines if line.kind != "removed"], lexer))
    gone = [line.text for line in lines if line.kind != "added"] if any(x.kind == "removed" for x in lines) else []
    old = iter(_coloured(gone, lexer))
    for line in lines:
        tokens = next(old) if line.kind == "removed" else next(new)
        if line.kind == "context" and gone:
            next(old)
        yield Row(line.kind, line.old, line.new, _code(line, tokens))


Token = tuple[str, str]  # class, text


def _coloured(lines: list[str], lexer: Lexer | None) -> list[list[Token]]:
    """The tokens of each line. The lines of one side are read as one text, so that a string may span them."""
    if lexer is None or not lines:
        return [[("", line)] for line in lines]
    rows: list[list[Token]] = []
    row: list[Token] = []
    colour, text = "", ""  # neighbours of one colour become one token
    for _, token, value in lexer.get_tokens_unprocessed("\n".join(lines)):
        found = _colour(token)
        if found != colour:
            row.append((colour, text))
            colour, text = found, ""
        text += value
        if "\n" in value:
            *whole, text = text.split("\n")
            for part in whole:
                row.append((colour, part))
                rows.append(row)
                row = []
    row.append((colour, text))
    rows.append(row)
    return rows


@lru_cache(maxsize=256)
def _colour(token: _TokenType) -> str:
    return next((name for kind, name in COLOURS if token in kind), "")


def _code(line: Line, tokens: list[Token]) -> str:
    parts: list[str] = []
    at = 0
    for colour, text in tokens:
        for piece, marked in _cut(text[: LONGEST_LINE - at], at, line.words):
            classes = " ".join(filter(None, (colour, "w" if marked else "")))
            shown = visible(piece)
            parts.append(f'<span class="{classes}">{shown}</span>' if classes else shown)
        at += len(text)
        if at >= LONGEST_LINE:
            break
    if len(line.text) > LONGEST_LINE:
        parts.append(f'<span class="cut">… {len(line.text) - LONGEST_LINE:,} more characters</span>')
    if line.unended:
        parts.append('<span class="cut">no newline at the end</span>')
    return "".join(parts)


def _cut(text: str, at: int, spans: list[Span]) -> Iterator[tuple[str, bool]]:
    """Pieces of a token that begins at column `at`, each with whether its words changed."""
    if not spans:
        yield text, False
        return
    borders = sorted({0, len(text), *(min(max(edge - at, 0), len(text)) for span in spans for edge in span)})
    for start, stop in zip(borders, borders[1:], strict=False):
        yield text[start:stop], any(low <= at + start < high for low, high in spans)


def visible(text: str) -> str:
    """Escaped, with every character that would hide, reorder or break the text replaced by its number."""
    if text.isascii() and text.isprintable():
        return escape(text)
    return "".join(_shown(char) for char in text)


def _shown(char: str) -> str:
    if char == "\t" or char.isprintable():
        return escape(char)
    if "\udc80" <= char <= "\udcff":  # a byte that is no UTF-8, as git handed it on
        return f'<span class="odd" title="a byte that is not UTF-8">⟨0x{ord(char) - 0xDC00:02X}⟩</span>'
    if char == "\r":
        return '<span class="odd" title="carriage return">⟨CR⟩</span>'
    name = escape(unicodedata.name(char, "control character").lower())
    return f'<span class="odd" title="{name}">⟨U+{ord(char):04X}⟩</span>'
