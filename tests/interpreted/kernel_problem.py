"""Compares the Triton solutions in folders with their references, in the interpreter. One line a workload."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch

from benchmarks.kernels.compare import compare
from benchmarks.kernels.formats.loader import load_problem
from benchmarks.kernels.inputs import make_inputs
from benchmarks.kernels.interpreted import mend
from benchmarks.kernels.reference import Reference, normalized


def compare_in(folder: Path) -> None:
    problem, cpu = load_problem(folder, "workload.cpu.jsonl"), torch.device("cpu")
    spec = importlib.util.spec_from_file_location(f"triton_{folder.name}", folder / "triton_kernel.py")
    assert spec is not None and spec.loader is not None
    solution = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(solution)
    for workload in problem.workloads:
        inputs = make_inputs(problem.definition, workload, 7, cpu)
        kept = {name: value.clone() for name, value in inputs.items() if isinstance(value, torch.Tensor)}
        wanted = Reference(problem.definition, cpu).run(inputs)
        given = normalized(solution.run(*inputs.values()), problem.definition, cpu)
        found = compare(given, wanted, workload.tolerance)
        changed = [name for name, value in kept.items() if not torch.equal(value, torch.as_tensor(inputs[name]))]
        print(folder.name, found.status.value, workload.uuid, found, f"changed {changed}" if changed else "")


if __name__ == "__main__":
    mend()
    for each in sys.argv[1:]:
        compare_in(Path(each))
