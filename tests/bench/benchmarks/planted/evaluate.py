"""nanochat's own evaluator, but the clock of marked trees runs longer: gains of a known size, invisible in the code.

A tree is marked by its notes. Which notes count, and how much longer they make the budget, stands in a file of the data
folder that the lab knows nothing of. Factors multiply: on a head that has two of them, a third adds its own.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from django.conf import settings

from benchmarks.contract import Assignment, Outcome
from benchmarks.nanochat import evaluate
from tests.bench.benchmarks.planted.catalogue import NOTE

INSIDE, PRELOAD, SETUP = evaluate.INSIDE, evaluate.PRELOAD, evaluate.SETUP


def planted_file() -> Path:
    """{note: factor of the budget}, as JSON."""
    return Path(settings.DATA_DIR) / "planted.json"


def factor_of(notes: Iterable[int]) -> float:
    """How much longer a tree with these notes trains."""
    known = json.loads(planted_file().read_text())
    return prod(known.get(str(note), 1.0) for note in notes)


def notes_in(tree: bytes) -> list[int]:
    """The numbers of the notes in a tree's train.py."""
    with tarfile.open(fileobj=io.BytesIO(tree)) as archive:
        file = archive.extractfile("train.py")
        assert file is not None
        return [int(number) for number in NOTE.findall(file.read().decode())]


class Evaluator(evaluate.Evaluator):
    def run(self, task: Assignment, *arguments: Any, **options: Any) -> Outcome:
        seconds = task.preset.budget_seconds * factor_of(notes_in(task.tree))
        longer = replace(task, preset=replace(task.preset, budget_seconds=seconds))
        return super().run(longer, *arguments, **options)
