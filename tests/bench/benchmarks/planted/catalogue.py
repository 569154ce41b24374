"""The only technique: a note in a comment, and with every second one another name for a constant. Nothing changes."""

from __future__ import annotations

import re

from benchmarks.catalogue import Catalogue, Sources, Technique, Tunable, Tunables

NOTE = re.compile(r"^# note (\d+)$", re.MULTILINE)


def note(sources: Sources, tunables: Tunables) -> Sources:
    number = int(tunables["number"])
    text = f"{sources['train.py'].rstrip()}\n# note {number}\n"
    if number % 2:
        text = re.sub(r"\bLOG_EVERY\w*", f"LOG_EVERY_{number}", text)
    return sources | {"train.py": text}


CATALOGUE = Catalogue(
    [
        Technique(
            name="note",
            title="a note",
            family="notes",
            hypothesis="Another note lowers the loss.",
            source="the tests",
            apply=note,
            tunables=(Tunable("number", 1, choices=tuple(range(1, 1001))),),  # choices: none repeats its neighbour
        )
    ]
)
