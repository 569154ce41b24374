"""A record as files: the JSON, and beside it the page, and a folder with the figures and the champion's patch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from research.management.record import FORMAT, NotARecord, Record
from research.management.record.figures import figures
from research.management.record.page import page


def write(record: Record, target: Path) -> list[Path]:
    """The JSON, then what is made of it. Figures that the record has no numbers for any more are taken away."""
    target.write_text(text_of(record) + "\n")
    return [target, *draw(record, target)]


def draw(record: Record, target: Path) -> list[Path]:
    """Page, figures and patch of the record that lies at `target`."""
    drawn, folder = figures(record), target.with_suffix("")
    folder.mkdir(exist_ok=True)
    made = {folder / f"{figure.name}.svg": figure.svg for figure in drawn}
    made[target.with_suffix(".md")] = page(record, target.stem, drawn)
    if patch := record["champion"]["patch"]:
        made[folder / "champion.patch"] = "\n".join(patch) + "\n"
    for old in {*folder.glob("*.svg"), *folder.glob("*.patch")} - made.keys():
        old.unlink()
    for path, text in made.items():
        path.write_text(text)
    return sorted(made)


def read(source: Path) -> Record:
    """Raises NotARecord."""
    try:
        record = json.loads(source.read_text())
    except (OSError, ValueError) as error:
        raise NotARecord(f"{source} cannot be read: {error}") from error
    found = record.get("format") if isinstance(record, dict) else None
    if found != FORMAT:
        raise NotARecord(f"{source} is no record of format {FORMAT}; make it anew with `manage.py record PROJECT`")
    return dict(record)


def text_of(value: Any, indent: str = "") -> str:
    """JSON with a line for each key and each row, but lists of plain values on one line: short, and fit for a diff."""
    if isinstance(value, dict | list) and value and not _is_plain(value):
        deeper = indent + " "
        inner = ",\n".join(deeper + line for line in _lines(value, deeper))
        opening, closing = "{}" if isinstance(value, dict) else "[]"
        return f"{opening}\n{inner}\n{indent}{closing}"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _lines(value: dict[str, Any] | list[Any], indent: str) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (f"{json.dumps(key)}: {text_of(inner, indent)}" for key, inner in value.items())
    else:
        yield from (text_of(inner, indent) for inner in value)


def _is_plain(value: dict[str, Any] | list[Any]) -> bool:
    """Whether it goes on one line: numbers and short words; lines of a patch have one each."""
    inner = list(value.values()) if isinstance(value, dict) else value
    short = all(not isinstance(one, dict | list) and not (isinstance(one, str) and len(one) > 30) for one in inner)
    return short and (isinstance(value, list) and not any(isinstance(one, str) for one in inner) or len(inner) < 8)
