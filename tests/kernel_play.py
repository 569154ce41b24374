"""Kernel problems of our own making, in the official formats, read by the real parsers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.kernels.formats.definition import parse_definition
from benchmarks.kernels.formats.workload import Problem, parse_workloads

Tensors = Mapping[str, tuple[str, str]]  # name -> (axes with commas, dtype); axes "scalar" for a Python scalar


def problem(
    folder: Path,
    inputs: Tensors,
    outputs: Tensors,
    body: str,
    sizes: Sequence[Mapping[str, int]] = ({"n": 4},),
    rtol: float = 1e-2,
    atol: float = 1e-2,
    sources: Mapping[str, Mapping[str, Any]] | None = None,
    before: str = "",
    **more: Any,
) -> Problem:
    """One whose `run` takes the inputs in order and has `body`; its workloads are `w0`, `w1`, ... of those sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    reference = f"import torch\nimport torch.nn.functional as F\n{before}\ndef run({', '.join(inputs)}):\n    {body}\n"
    definition = {"name": folder.name, "axes": {axis: {"type": "var"} for axis in sizes[0]}, "inputs": _specs(inputs),
                  "outputs": _specs(outputs), "reference": reference, **more}  # fmt: skip
    rows = [{"uuid": f"w{number}", "axes": dict(axes), "tolerance": {"max_atol": atol, "max_rtol": rtol},
             "inputs": {name: dict((sources or {}).get(name, {"type": "random"})) for name in inputs}}
            for number, axes in enumerate(sizes)]  # fmt: skip
    lines = [json.dumps(row) + "\n" for row in rows]
    read = parse_definition(definition, "definition.json")
    return Problem(read, parse_workloads("".join(lines), read, "workload.jsonl"), folder=folder)


def double(folder: Path, workloads: int = 1) -> Problem:
    """The least of problems: y = 2 x, of 4, 8, 12, ... elements."""
    sizes = [{"n": 4 * (number + 1)} for number in range(workloads)]
    return problem(folder, {"x": ("n", "float32")}, {"y": ("n", "float32")}, "return 2 * x", sizes)


def _specs(tensors: Tensors) -> dict[str, Any]:
    return {name: {"shape": None if axes == "scalar" else [axis for axis in axes.split(",") if axis], "dtype": dtype}
            for name, (axes, dtype) in tensors.items()}  # fmt: skip
