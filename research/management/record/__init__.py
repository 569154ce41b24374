"""The record of a project: what it measured and merged, as one JSON file that can be committed, and a page made of it.

    rows        the record, from the rows of a project
    beside      what was measured beside verdicts: closing pairs, other budgets, curves, two presets
    commands    how it was made: the commands that make it again
    withheld    what is not the project's to pass on, so that diffs leave it out
    check       whether the verdicts of a record follow from the evidence in it
    figures     drawings of a record alone
    page        Markdown of a record alone; `words` are shared by both
    files       record, page and figures as files

A record holds no text: no data, no samples, and no words that a trial printed (they could be text), so findings are
named by kind. Of each merge it holds the diff, and of every other candidate whose code is in no catalogue.
"""

from __future__ import annotations

from typing import Any

FORMAT = 1

Record = dict[str, Any]  # JSON: read with the names that `rows` writes


class NotARecord(Exception):
    """The file is no record that this version reads. One line."""
