"""Techniques for kernels, played: prepared data of our own problems, and solutions run as a trial runs them."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import torch

from benchmarks.catalogue import Sources
from benchmarks.kernels import evaluate
from benchmarks.kernels.compare import compare
from benchmarks.kernels.formats.loader import OWN, load_problem
from benchmarks.kernels.formats.trace import Status
from benchmarks.kernels.formats.workload import Problem
from benchmarks.kernels.inputs import make_inputs
from benchmarks.kernels.reference import Reference, normalized

NAMES = sorted(path.parent.name for path in OWN.glob("*/definition.json"))
HARNESS = Path(evaluate.__file__).parent / "inside" / "harness.py"
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-unused-function")
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


@contextmanager
def harness() -> Iterator[None]:
    """What a solution finds in the sandbox, with the warnings of the compiler as errors."""
    BUILT.mkdir(exist_ok=True)
    call = ModuleType("inside_call")
    call.cache = call.scratch = str(BUILT)  # type: ignore[attr-defined]
    before = {name: sys.modules.get(name) for name in ("inside_call", "harness")}
    sys.modules["inside_call"] = call
    try:
        spec = spec_from_file_location("harness", HARNESS)
        assert spec is not None and spec.loader is not None
        sys.modules["harness"] = module = module_from_spec(spec)
        spec.loader.exec_module(module)
        compile_cpp = module.compile_cpp
        module.compile_cpp = lambda source, flags=module.FLAGS: compile_cpp(source, (*flags, *WARNINGS))  # type: ignore[attr-defined]
        yield
    finally:
        for name, one in before.items():
            if one is None:
                del sys.modules[name]
            else:
                sys.modules[name] = one


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
