"""Our own kernel problems: Triton solutions agree with references, and references with autograd."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.kernels.formats.loader import OWN, load_problem

ROOT = Path(__file__).resolve().parent.parent


def test_the_triton_solution_of_silu_backward_passes_in_the_interpreter() -> None:
    script = str(ROOT / "tests/interpreted/kernel_problem.py")
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, script, str(OWN / "silu_backward")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["PASSED"] * 4, done.stdout


def test_the_reference_of_silu_backward_is_the_gradient_of_silu() -> None:
    scope: dict = {}
    exec(load_problem(OWN / "silu_backward").definition.reference, scope)
    x = torch.linspace(-9, 9, 131, dtype=torch.float64, requires_grad=True)
    grad = torch.linspace(1, 2, 131, dtype=torch.float64)
    torch.nn.functional.silu(x).backward(grad)
    torch.testing.assert_close(scope["run"](grad, x.detach()), x.grad)
