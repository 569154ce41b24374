"""Techniques for kernels, played: prepared data of our own problems, and solutions run as a trial runs them."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import torch

from benchmarks.catalogue import Sources
from benchmarks.kernels.compare import compare
from benchmarks.kernels.formats.loader import OWN, load_problem
from benchmarks.kernels.formats.trace import Status
from benchmarks.kernels.formats.workload import Problem
from benchmarks.kernels.inputs import make_inputs
from benchmarks.kernels.reference import Reference, normalized

NAMES = sorted(path.parent.name for path in OWN.glob("*/definition.json"))
BUILT = Path(tempfile.gettempdir()) / "kernel-technique-play"  # libraries that were compiled before, by their content


def prepared(folder: Path, workloads: str = "workload.cpu.jsonl") -> Path:
    """Data of all our own problems, as `prepare` lays them out."""
    for name in NAMES:
        (folder / "problems" / name).mkdir(parents=True)
        shutil.copy(OWN / name / "definition.json", folder / "problems" / name)
        shutil.copy(OWN / name / workloads, folder / "problems" / name / "workload.jsonl")
    return folder


def starts(problems: Sequence[Problem]) -> Sources:
    return {f"{problem.name}/solution.py": problem.definition.reference for problem in problems}


def compile_cpp(source: str, flags: Sequence[str] = ("-O3", "-march=native")) -> ctypes.CDLL:
    """What `harness` offers to a solution, with the warnings as errors."""
    BUILT.mkdir(exist_ok=True)
    library = BUILT / f"{hashlib.sha256((source + repr(flags)).encode()).hexdigest()}.so"
    if not library.exists():
        command = [
            "g++",
            "-std=c++17",
            "-shared",
            "-fPIC",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-unused-function",
            *flags,
        ]
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "source.cpp").write_text(source)
            subprocess.run([*command, "-o", "built.so", "source.cpp"], cwd=folder, check=True)
            shutil.move(Path(folder) / "built.so", library)
    return ctypes.CDLL(str(library))


@contextmanager
def harness() -> Iterator[None]:
    module = ModuleType("harness")
    module.compile_cpp = compile_cpp  # type: ignore[attr-defined]
    before = sys.modules.get("harness")
    sys.modules["harness"] = module
    try:
        yield
    finally:
        del sys.modules["harness"]
        if before is not None:
            sys.modules["harness"] = before


def solution(source: str) -> ModuleType:
    module = ModuleType("solution")
    with harness():
        exec(compile(source, "solution.py", "exec"), module.__dict__)
    return module


def faults(source: str, problem: Problem, *sizes: Mapping[str, int]) -> list[str]:
    """What is wrong with a solution on the problem's workloads, and at further sizes; empty: it passes."""
    module, cpu = solution(source), torch.device("cpu")
    reference = Reference(problem.definition, cpu)
    first = problem.workloads[0]
    further = [replace(first, uuid=str(dict(axes)), axes=dict(axes)) for axes in sizes]
    found = []
    for workload in (*problem.workloads, *further):
        inputs = make_inputs(problem.definition, workload, 11, cpu, reference=reference)
        kept = {name: value.clone() for name, value in inputs.items() if isinstance(value, torch.Tensor)}
        wanted = reference.run(inputs)
        with torch.no_grad():
            given = normalized(module.run(*inputs.values()), problem.definition, cpu)
        compared = compare(given, wanted, workload.tolerance)
        if compared.status is not Status.PASSED:
            found.append(f"{workload.uuid}: {compared.status} {compared.reason}")
        found += [f"{workload.uuid}: changes {name}" for name, value in kept.items() if differs(value, inputs[name])]
    return found


def differs(before: torch.Tensor, after: object) -> bool:
    assert isinstance(after, torch.Tensor)
    return not torch.equal(before.view(torch.uint8), after.view(torch.uint8))


def own(name: str, workloads: str = "workload.cpu.jsonl") -> Problem:
    return load_problem(OWN / name, workloads)
