"""`export`: a tree of solutions as official solution.json files, which stand alone."""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.kernels.commands.suite import read_tree
from benchmarks.kernels.evaluate import INSIDE
from benchmarks.kernels.formats.definition import parse_definition
from benchmarks.kernels.formats.fields import parse_json, read_text
from benchmarks.kernels.formats.loader import OWN
from benchmarks.kernels.formats.solution import Solution, Source
from benchmarks.kernels.formats.workload import Problem
from benchmarks.kernels.trees import DEFINITION, SOLUTION

HELP = "write a tree of solutions as official solution.json files"
# What `harness` needs of the sandbox, where there is none.
OUTSIDE = '''"""Where compiled libraries are kept outside of the lab: a folder of this process."""

import tempfile

cache = scratch = tempfile.mkdtemp(prefix="kernel-")
'''


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(problems=None)
    parser.add_argument("--tree", type=Path, required=True, help=f"a folder of NAME/{SOLUTION}")
    parser.add_argument("--out", type=Path, required=True, help="a folder that gets NAME/solution.json")
    parser.add_argument("--author", default="recursive-lab")


def run(options: argparse.Namespace, problems: Sequence[Problem]) -> int:
    """Raises FormatError for a tree without solutions."""
    files = {path.partition("/")[0]: text.decode() for path, text in read_tree(options.tree).items()
             if path.endswith(f"/{SOLUTION}")}  # fmt: skip
    left_out = {name for name, text in files.items() if is_their_reference(options.tree / name, text)}
    for name in sorted(left_out):
        print(f"{name} is left out: it is still the reference that others wrote", file=sys.stderr)
    for name, text in files.items():
        if name in left_out:
            continue
        folder = options.out / name
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / ".solution.json"
        partial.write_text(json.dumps(solution(name, text, options.author).to_json(), indent=1) + "\n")
        partial.replace(folder / "solution.json")
    print(f"{len(files) - len(left_out)} solutions are in {options.out}")
    return 0


def is_their_reference(folder: Path, text: str) -> bool:
    """Whether a solution is word for word the reference that lies beside it, of a problem that is not ours."""
    definition, ours = folder / DEFINITION, OWN / folder.name / DEFINITION
    if not definition.is_file() or (ours.is_file() and ours.read_bytes() == definition.read_bytes()):
        return False
    known = parse_definition(parse_json(read_text(definition), str(definition)), str(definition))
    return known.reference.strip() == text.strip()


def solution(name: str, text: str, author: str) -> Solution:
    imported = modules(text)
    sources = [Source(SOLUTION, text)]
    if "harness" in imported:
        sources += [Source("harness.py", (INSIDE / "harness.py").read_text()), Source("inside_call.py", OUTSIDE)]
    triton = "triton" in imported
    return Solution(
        name=f"{name}-{author}", definition=name, author=author, languages=("triton",) if triton else ("pytorch",),
        entry_point=f"{SOLUTION}::run", sources=tuple(sources), dependencies=("torch", *(["triton"] if triton else [])),
        destination_passing_style=False,
    )  # fmt: skip


def modules(text: str) -> set[str]:
    """The top names of all that a source imports; empty where it is no Python."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except SyntaxError:
        return set()
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.partition(".")[0] for name in names}
