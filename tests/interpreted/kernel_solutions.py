"""Runs solutions in Triton's interpreter beside the references. The file named first lists cases, as JSON.

A case is {"folder": of a problem, "workloads": its file, "solution": text, "sizes": axes to play besides}. One line a
workload: status, case, sizes, what differs.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from benchmarks.kernels.compare import compare
from benchmarks.kernels.formats.loader import load_problem
from benchmarks.kernels.inputs import make_inputs
from benchmarks.kernels.interpreted import mend
from benchmarks.kernels.reference import Reference, normalized


def loaded(text: str, folder: Path, number: int) -> ModuleType:
    """From a file of its own: Triton reads the text of a kernel there."""
    path = folder / f"solution_{number}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def play(number: int, case: dict[str, Any], folder: Path) -> None:
    problem, cpu = load_problem(Path(case["folder"]), case["workloads"]), torch.device("cpu")
    first, reference = problem.workloads[0], Reference(problem.definition, torch.device("cpu"))
    further = [replace(first, axes=axes) for axes in case["sizes"]]
    module = loaded(case["solution"], folder, number)
    for workload in further or problem.workloads:
        inputs = make_inputs(problem.definition, workload, 7, cpu, reference=reference)
        kept = {name: value.clone() for name, value in inputs.items() if isinstance(value, torch.Tensor)}
        wanted = reference.run(inputs)
        given = normalized(module.run(*inputs.values()), problem.definition, cpu)
        found = compare(given, wanted, workload.tolerance)
        changed = [name for name, value in kept.items() if not torch.equal(value, torch.as_tensor(inputs[name]))]
        print(found.status.value, problem.name, dict(workload.axes), found.reason, f"changed {changed}" * bool(changed))


def main(cases: Path) -> None:
    mend()
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(json.loads(cases.read_text())):
            play(number, case, Path(folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
