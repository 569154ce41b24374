"""Our own kernel problems: Triton solutions agree with references, and references with what torch says."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
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


@pytest.fixture(scope="module")
def interpreted() -> str:
    """What the interpreter says of every problem, in one process: its imports take longer than most problems."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "tests/interpreted/kernel_problem.py"), *(str(OWN / name) for name in NAMES)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.torch
@pytest.mark.parametrize("name", NAMES)
def test_the_triton_solution_passes_in_the_interpreter_and_leaves_its_inputs_alone(name: str, interpreted: str) -> None:
    lines = [line.removeprefix(f"{name} ") for line in interpreted.splitlines() if line.startswith(f"{name} ")]
    assert len(lines) >= 3 and all(line.startswith("PASSED") for line in lines), lines
    assert not any("changed" in line for line in lines), lines


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
        ratio = workload.tolerance.required_matched_ratio  # where two scores nearly tie, either may be chosen
        assert ratio == large.workloads[0].tolerance.required_matched_ratio or (name == "moe_gating" and ratio > 0.9)
        assert replace(workload.tolerance, required_matched_ratio=0) == replace(
            large.workloads[0].tolerance, required_matched_ratio=0
        )
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


def test_the_gradients_of_a_norm_are_those_of_autograd() -> None:
    x, grad = torch.randn(5, 64, dtype=torch.bfloat16), torch.randn(5, 64, dtype=torch.bfloat16)
    gain = torch.randn(64, dtype=torch.bfloat16)
    wide, factor = (each.double().requires_grad_() for each in (x, gain))
    wanted = torch.autograd.grad(F.rms_norm(wide, (64,), factor, 1e-6), (wide, factor), grad.double())
    grad_x, grad_gain = reference("rms_norm_backward")(grad, x, gain)
    torch.testing.assert_close(grad_x.double(), wanted[0], atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(grad_gain.double(), wanted[1], atol=1e-4, rtol=1e-4)


def test_cross_entropy_and_its_gradient_are_those_of_autograd() -> None:
    logits, targets = torch.randn(7, 50).bfloat16(), torch.randint(50, (7,))
    wide = logits.double().requires_grad_()
    wanted = F.cross_entropy(wide, targets, reduction="none")
    (grad,) = torch.autograd.grad(wanted.sum(), wide)
    loss, grad_logits = reference("cross_entropy")(logits, targets)
    torch.testing.assert_close(loss.double(), wanted.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(grad_logits.double(), grad, atol=1e-6, rtol=1e-2)


def test_rotary_embedding_turns_pairs_by_their_angle() -> None:
    q, k = torch.randn(2, 5, 3, 8).bfloat16(), torch.randn(2, 5, 1, 8).bfloat16()
    angle = torch.randn(5, 4, dtype=torch.float64)
    for x, y in zip((q, k), reference("rope")(q, k, angle.cos().float(), angle.sin().float()), strict=True):
        pairs = (
            torch.complex(x[..., :4].double(), x[..., 4:].double())
            * torch.polar(torch.ones_like(angle), angle)[:, None]
        )
        torch.testing.assert_close(y.double(), torch.cat((pairs.real, pairs.imag), -1), atol=1e-2, rtol=1e-2)
