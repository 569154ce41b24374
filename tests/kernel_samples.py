"""A small problem in the official layout, of our own, for the tests of the kernels benchmark."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

REFERENCE = """
import torch

def make(axes_and_scalars, device):
    rows = axes_and_scalars["rows"]
    return {"x": torch.randn(rows, 6, device=device), "weight": torch.ones(6, device=device), "eps": 0.5}

@torch.no_grad()
def run(x, weight, eps):
    scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    return x * scale * weight, scale.squeeze(-1)
"""

DEFINITION: dict[str, Any] = {
    "name": "scaled_rows",
    "description": "Rows scaled by their root mean square.",
    "axes": {
        "rows": {"type": "var", "description": "tokens"},
        "half": {"type": "const", "value": 3},
        "width": {"type": "expr", "expression": "half * 2"},
    },
    "inputs": {
        "x": {"shape": ["rows", "width"], "dtype": "float32"},
        "weight": {"shape": ["half * 2"], "dtype": "float32"},
        "eps": {"shape": None, "dtype": "float32"},
    },
    "outputs": {
        "y": {"shape": ["rows", "width"], "dtype": "float32"},
        "scale": {"shape": ["rows"], "dtype": "float32"},
    },
    "reference": REFERENCE,
    "custom_inputs_entrypoint": "make",
}
WORKLOAD: dict[str, Any] = {
    "uuid": "one",
    "axes": {"rows": 5},
    "inputs": {"x": {"type": "random"}, "weight": {"type": "random"}, "eps": {"type": "scalar", "value": 1e-5}},
    "tolerance": {"max_atol": 1e-3, "max_rtol": 0.02},
}
SOLUTION: dict[str, Any] = {
    "name": "mine",
    "definition": "scaled_rows",
    "author": "Ada",
    "spec": {"languages": ["triton"], "target_hardware": ["LOCAL"], "entry_point": "kernel.py::run"},
    "sources": [{"path": "kernel.py", "content": "def run(x, weight, eps, y, scale): ...\n"}],
}


def changed(value: dict[str, Any], path: str, new: Any = None) -> dict[str, Any]:
    """A copy with the value at a dotted path replaced; None removes it."""
    value = copy.deepcopy(value)
    *parents, last = path.split(".")
    at = value
    for key in parents:
        at = at[int(key)] if isinstance(at, list) else at[key]
    if new is None:
        del at[last]
    else:
        at[last] = new
    return value


def write_problem(folder: Path, definition: dict[str, Any] = DEFINITION, *workloads: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    (folder / "definition.json").write_text(json.dumps(definition))
    (folder / "workload.jsonl").write_text("\n".join(json.dumps(one) for one in workloads or (WORKLOAD,)) + "\n")
    return folder
