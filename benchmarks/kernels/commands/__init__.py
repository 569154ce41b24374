"""What `python -m benchmarks.kernels` can do, one command a module. None imports torch before it needs it."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Protocol

from benchmarks.kernels.commands import anchors, evaluate, export, listing, prepare, score, sol, suite
from benchmarks.kernels.formats.workload import Problem


class Command(Protocol):
    HELP: str

    def arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, options: argparse.Namespace, problems: Sequence[Problem]) -> int:
        """The exit code."""


COMMANDS: Mapping[str, Command] = {
    "list": listing,
    "prepare": prepare,
    "evaluate": evaluate,
    "suite": suite,
    "sol": sol,
    "anchors": anchors,
    "score": score,
    "export": export,
}
