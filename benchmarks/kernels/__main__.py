"""The kernels benchmark without the lab: prepare its problems, measure solutions, bounds and anchors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks.contract import ContractError, load
from benchmarks.data import DataError
from benchmarks.kernels import prepare
from benchmarks.kernels.anchors import AnchorError
from benchmarks.kernels.bounds import BoundError
from benchmarks.kernels.commands import COMMANDS
from benchmarks.kernels.formats.fields import FormatError
from benchmarks.kernels.formats.loader import OWN, load_problems
from runners.sandbox import SandboxBroken


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        command.arguments(commands.add_parser(name, help=command.HELP))
    if "--list" in arguments:  # as the official runner spells it, wherever it stands
        arguments = ["list", *(argument for argument in arguments if argument != "--list")]
    options = parser.parse_args(arguments)
    try:
        return COMMANDS[options.command].run(options, load_problems(options.problems or OWN))
    except (FormatError, AnchorError, BoundError, ContractError, DataError, SandboxBroken) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `| head`
        sys.stderr.close()
        return 0


def install(preset: str) -> None:
    """Prepare our own problems for a preset, with progress on stderr. For a lab that has none yet."""
    wanted = load("kernels").preset(preset)
    prepare.prepare(prepare.own_problems(wanted.device), wanted.data, say)


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
