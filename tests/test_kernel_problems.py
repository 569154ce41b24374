"""Our own kernel problems: Triton solutions agree with references, and references with what torch says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from benchmarks.kernels.formats.loader import OWN, load_problem

ROOT = Path(__file__).resolve().parent.parent
NAMES = sorted(path.parent.name for path in OWN.glob("*/definition.json"))


def reference(name: str) -> Any:
    scope: dict[str, Any] = {}
    exec(load_problem(OWN / name).definition.reference, scope)
    return scope["run"]


@pytest.mark.torch
@pytest.mark.parametrize("name", NAMES)
def test_the_triton_solution_passes_in_the_interpreter_and_leaves_its_inputs_alone(name: str) -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "tests/interpreted/kernel_problem.py"), str(OWN / name)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert len(lines) >= 3 and all(line.startswith("PASSED") for line in lines), done.stdout
    assert "changed" not in done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_a_problem_has_workloads_for_a_gpu_of_an_odd_size_too(name: str) -> None:
    workloads = load_problem(OWN / name).workloads
    assert 6 <= len(workloads) <= 8
    assert any(value % 2 and value > 100 for workload in workloads for value in workload.axes.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_problem_has_sizes_to_time_on_a_cpu_of_its_own(name: str) -> None:
    problem = load_problem(OWN / name, "workload.cpu_timed.jsonl")
    assert 3 <= len(problem.workloads) <= 4
    assert any(value % 2 and value > 10 for workload in problem.workloads for value in workload.axes.values())
    small, large = load_problem(OWN / name, "workload.cpu.jsonl"), load_problem(OWN / name)
    for workload in problem.workloads:
        assert workload.tolerance == large.workloads[0].tolerance
        size = problem.definition.declared_bytes(workload.axes)
        assert size > min(problem.definition.declared_bytes(each.axes) for each in small.workloads)
        assert size < max(problem.definition.declared_bytes(each.axes) for each in large.workloads)


def test_the_gradient_of_silu_is_that_of_autograd() -> None:
    x = torch.linspace(-9, 9, 131, dtype=torch.float64, requires_grad=True)
    grad = torch.linspace(1, 2, 131, dtype=torch.float64)
    (wanted,) = torch.autograd.grad(F.silu(x), x, grad)
    torch.testing.assert_close(reference("silu_backward")(grad, x.detach()), wanted)


def test_the_norms_are_those_of_torch() -> None:
    x, residual, gain = (torch.randn(shape, dtype=torch.bfloat16) for shape in ((5, 64), (5, 64), (64,)))
    wanted = F.rms_norm(x.float(), (64,), gain.float(), 1e-6).to(torch.bfloat16)
    torch.testing.assert_close(reference("rms_norm")(x, gain), wanted)
    y, total = reference("add_rms_norm")(x, residual, gain)
    assert torch.equal(total, x + residual)
    torch.testing.assert_close(y, F.rms_norm(total.float(), (64,), gain.float(), 1e-6).to(torch.bfloat16))


def test_capped_scores_are_weighed_as_uncapped_ones_while_they_are_small() -> None:
    small, large = 0.1 * torch.randn(4, 32), torch.tensor([[1e4, 0.0, -1e4]])
    run = reference("softcapped_softmax")
    torch.testing.assert_close(
        run(small.bfloat16()).float(), small.bfloat16().float().softmax(-1), atol=2e-4, rtol=1e-2
    )
    ratio = run(large.bfloat16())[0, 0].item()
    assert ratio == pytest.approx(1.0) and run(large.bfloat16())[0, 2].item() < 1e-20
