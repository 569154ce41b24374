"""Vendored files are what their tables say, each with its licence; the lab's scripts and they fit the budget."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDERS = [ROOT / "static" / "vendor", Path(__file__).parent / "vendor"]
FIRST_LOAD = 60_000  # bytes of JavaScript, gzip
PAGE = [
    "vendor/htmx.min.js",
    "vendor/idiomorph-ext.min.js",
    "live.js",
    "curves.js",
    "plot.js",
    "lines.js",
    "parts.js",
    "charts.js",
]


def rows(folder: Path) -> dict[str, str]:
    """File -> sha256, of the table in the folder's README."""
    return dict(re.findall(r"^\| `(.+?)` .*`([0-9a-f]{64})` \|$", (folder / "README.md").read_text(), re.MULTILINE))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.parent.name)
def test_vendored_files_are_those_of_the_table(folder: Path) -> None:
    scripts = {str(path.relative_to(folder)) for path in folder.rglob("*.*") if path.suffix in (".js", ".css")}
    assert scripts == rows(folder).keys()
    for name, digest in rows(folder).items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
    for link in re.findall(r"\]\(([\w./-]+)\)", (folder / "README.md").read_text()):
        assert (folder / link).stat().st_size > 500


def test_the_scripts_of_a_page_with_charts_fit_the_budget() -> None:
    keys = [path.name for path in (ROOT / "static").glob("keys.js")]
    sizes = {name: len(gzip.compress((ROOT / "static" / name).read_bytes(), 9)) for name in PAGE + keys}
    print(sizes, sum(sizes.values()))
    assert sum(sizes.values()) <= FIRST_LOAD
