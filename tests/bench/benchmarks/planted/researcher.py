"""Proposes note after note, each of which changes nothing; and then nothing more."""

from __future__ import annotations

import os
from collections.abc import Sequence

from benchmarks.catalogue import Sources, Step
from research.researchers.base import Draft, NothingToPropose, View

CANDIDATES = int(os.environ.get("PLANTED_CANDIDATES", "40"))


class Notes:
    name = "notes"
    ships_code = False  # it is measured like anybody's from outside
    holds_sessions = False

    def propose(self, view: View) -> Draft:
        number = len(view.attempts) + 1
        if number > CANDIDATES:
            raise NothingToPropose(f"all {CANDIDATES} notes have been proposed")
        return Draft(
            kind="technique", hypothesis=f"Note {number} lowers the loss.", expected_effect=0.0,
            steps=(Step("note", {"number": number}),), tags=("notes",), cost_guess=10.0, title=f"note {number}",
            files=("train.py",),
        )  # fmt: skip

    def implement(self, view: View, kind: str, steps: Sequence[Step]) -> tuple[Sources, tuple[Step, ...]]:
        return view.catalogue.apply(view.sources, steps), (*view.recipe, *steps)
