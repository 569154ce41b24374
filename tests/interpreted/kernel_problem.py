"""Compares the Triton solution in a folder with its reference, in the interpreter. One line a workload."""

import importlib.util
import sys
from pathlib import Path

from benchmarks.kernels.compare import compare
from benchmarks.kernels.formats.loader import load_problem
from benchmarks.kernels.inputs import make_inputs

folder = Path(sys.argv[1])
problem = load_problem(folder, "workload.cpu.jsonl")
spec = importlib.util.spec_from_file_location("triton_kernel", folder / "triton_kernel.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
reference: dict = {}
exec(problem.definition.reference, reference)
name = next(iter(problem.definition.outputs))
for workload in problem.workloads:
    inputs = make_inputs(problem.definition, workload, seed=7).values()
    got, want = {name: module.run(*inputs)}, {name: reference["run"](*inputs)}
    found = compare(got, want, workload.tolerance)
    print(found.status.value, workload.uuid, found.reason if hasattr(found, "reason") else found)
