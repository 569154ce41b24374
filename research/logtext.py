"""The end of a trial's log, made safe to look at. A log is written by untrusted code: bytes, never markup.

Escaping is the template's; here terminal codes go, other control and direction-changing characters become visible, and
a line of a megabyte is cut. The whole, untouched, is a download.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

TAIL_BYTES = 256 * 1024
TAIL_LINES = 200
LINE_CHARACTERS = 2_000
# CSI, OSC (ends with BEL or ST, or never) and short escapes; bounded, so that no input takes long
ANSI = re.compile(
    r"\x1b(?:\[[0-9;:<=>?]{0,64}[ -/]{0,8}[@-~]|\][^\x07\x1b]{0,512}(?:\x07|\x1b\\)?|[ -/]{1,4}[0-~]|[@-Z\\-_])"
)
PLAIN = re.compile(r"[\x20-\x7e\t]*")


def tail(path: Path, lines: int = TAIL_LINES) -> tuple[list[str], bool]:
    """The last `lines` lines of a file, and whether something comes before them. Reads at most TAIL_BYTES."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        start = file.seek(max(0, size - TAIL_BYTES))
        content = file.read(TAIL_BYTES)
    rows = clean(content)
    if start:
        rows[0] = f"… cut {rows[0]}"
    return rows[-lines:], start > 0 or len(rows) > lines


def clean(content: bytes) -> list[str]:
    """Lines of printable text."""
    text = ANSI.sub("", content.decode("utf-8", "replace")).replace("\r\n", "\n")
    rows = [_line(row) for row in text.split("\n")]
    if len(rows) > 1 and not rows[-1]:
        rows.pop()  # the line break that ends the last line begins no new one
    return rows


def said(text: str) -> str:
    """A text that is no log: whole, without terminal codes, with what hides or reorders made visible."""
    rows = ANSI.sub("", text).replace("\r\n", "\n").split("\n")
    return "\n".join(row if PLAIN.fullmatch(row) else "".join(map(_visible, row)) for row in rows)


def _line(row: str) -> str:
    row = row.rstrip("\r").rsplit("\r", 1)[-1]  # a progress bar: what a terminal would show in the end
    cut = len(row) - LINE_CHARACTERS
    if cut > 0:
        row = row[:LINE_CHARACTERS]
    if not PLAIN.fullmatch(row):
        row = "".join(map(_visible, row))
    return f"{row} … cut {cut:,} characters" if cut > 0 else row


def _visible(character: str) -> str:
    """Control characters as their pictures, what turns the direction of text or is invisible by its code point."""
    code = ord(character)
    if character == "\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"):
        return character
    if code < 0x20:
        return chr(0x2400 + code)
    return "\N{SYMBOL FOR DELETE}" if code == 0x7F else f"<U+{code:04X}>"
