"""Matmuls, attention, routing, convolution, scatter and scan of our own: their references say what they are said to.

Each is held against the plain definition in float64. That the Triton solutions agree with the references is in
test_kernel_problems.py; here is that all of them fit a Hopper GPU.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import torch.nn.functional as F
import triton.language as tl
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

from benchmarks.kernels.formats.loader import OWN, load_problem
from benchmarks.kernels.inputs import make_inputs
from benchmarks.kernels.interpreted import mend
from benchmarks.kernels.reference import Reference

ROOT = Path(__file__).resolve().parent.parent
TENSOR_CORES = {"fp8_block_gemm", "gemm_bias_gelu", "gqa_prefill", "swiglu_gate_up"}
NAMES = sorted(path.parent.name for path in OWN.glob("*/definition.json"))
SHARED_BYTES, STACK_BYTES = 232_448, 16  # that a program may take on a multiprocessor; that are no spills

pytestmark = pytest.mark.torch


def played(name: str, workload: int = 1) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Inputs and outputs of the reference on one of the CPU workloads."""
    problem = load_problem(OWN / name, "workload.cpu.jsonl")
    inputs = make_inputs(problem.definition, problem.workloads[workload], seed=3)
    return inputs, Reference(problem.definition, "cpu").run(inputs)


def near(given: torch.Tensor, wanted: torch.Tensor, tolerance: float = 2e-2) -> None:
    torch.testing.assert_close(given.double(), wanted.double(), atol=tolerance, rtol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_triton_solution_compiles_for_hopper_without_spilling(name: str) -> None:
    command = [sys.executable, str(ROOT / "tests/interpreted/hopper_problem.py"), str(OWN / name)]
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(command, env=environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    builds = [json.loads(line) for line in done.stdout.splitlines()]
    assert builds
    for build in builds:
        assert build["shared"] <= SHARED_BYTES, build
        assert build["local"] == 0 and build["stack"] <= STACK_BYTES, build
        if name in TENSOR_CORES:
            assert build["wgmma"] and build["tma"], build


def test_the_interpreter_multiplies_bfloat16_by_value() -> None:
    mend()
    mend()
    builder = InterpreterBuilder()
    left, right = torch.randn(3, 5).bfloat16(), torch.randn(5, 2).bfloat16()
    a, b = (TensorHandle(each.view(torch.int16).numpy().view(numpy.uint16), tl.bfloat16) for each in (left, right))
    zero = TensorHandle(numpy.zeros((3, 2), numpy.float32), tl.float32)
    near(torch.from_numpy(builder.create_dot(a, b, zero, None, None).data), left.double() @ right.double(), 1e-6)
    single = TensorHandle(left.float().numpy(), tl.float32)
    same = builder.create_dot(single, TensorHandle(right.float().numpy(), tl.float32), zero, None, None)
    near(torch.from_numpy(same.data), left.double() @ right.double(), 1e-6)


def test_the_linear_layers_are_matmuls_and_activations() -> None:
    inputs, found = played("gemm_bias_gelu")
    x, weight, bias = (each.double() for each in inputs.values())
    near(found["y"], F.gelu(x @ weight.T + bias, approximate="tanh"))
    inputs, found = played("swiglu_gate_up")
    x, gate, up = (each.double() for each in inputs.values())
    near(found["y"], F.silu(x @ gate.T) * (x @ up.T))
    inputs, found = played("skinny_gemm")
    near(found["y"], inputs["x"].double() @ inputs["weight"].double().T)


def test_a_block_scale_holds_for_its_block_alone() -> None:
    inputs, found = played("fp8_block_gemm", workload=2)
    x, x_scale, weight, scale = (each.double() for each in inputs.values())
    assert x.abs().max() == 448 and weight.abs().max() == 448, "the whole range of e4m3 is used"
    wanted = torch.zeros(found["y"].shape, dtype=torch.float64)
    for column in range(scale.shape[0]):
        for inner in range(scale.shape[1]):
            there, here = slice(128 * inner, 128 * (inner + 1)), slice(128 * column, 128 * (column + 1))
            raw = x[:, there] @ weight[here, there].T
            wanted[:, here] += raw * x_scale[:, inner, None] * scale[column, inner]
    near(found["y"], wanted)


@pytest.mark.parametrize("name", ["gqa_decode", "gqa_prefill"])
def test_heads_of_a_group_attend_to_one_cache_head_and_never_to_the_future(name: str) -> None:
    inputs, found = played(name)
    q, k, v = (each.double() for each in inputs.values())
    q = q if name == "gqa_prefill" else q[:, None]
    batch, queries, heads, width = q.shape
    length, kv_heads = k.shape[1:3]
    for sequence in range(batch):
        for head in range(heads):
            cache = head // (heads // kv_heads)
            scores = q[sequence, :, head] @ k[sequence, :, cache].T / math.sqrt(width)
            if name == "gqa_prefill":
                scores += torch.full((queries, length), -math.inf, dtype=torch.float64).triu(1)
            wanted = scores.softmax(-1) @ v[sequence, :, cache]
            near(found["out"].view(q.shape)[sequence, :, head], wanted)
            if name == "gqa_decode":
                near(found["lse"][sequence, head], scores.logsumexp(-1)[0], 1e-5)


def test_experts_come_from_the_four_best_groups_and_weights_from_unbiased_scores() -> None:
    inputs, found = played("moe_gating", workload=2)
    rows = (each.tolist() for each in (inputs["logits"], found["weights"], found["indices"]))
    for logits, weights, indices in zip(*rows, strict=True):
        scores = [1 / (1 + math.exp(-each)) for each in logits]
        biased = [score + bias for score, bias in zip(scores, inputs["bias"].tolist(), strict=True)]
        size = len(logits) // 8
        groups = [range(first, first + size) for first in range(0, len(logits), size)]
        groups.sort(key=lambda group: -sum(sorted(biased[each] for each in group)[-2:]))
        wanted = sorted((each for group in groups[:4] for each in group), key=lambda each: -biased[each])[:8]
        assert indices == wanted
        total = sum(scores[each] for each in wanted)
        assert weights == pytest.approx([2.5 * scores[each] / total for each in wanted], rel=1e-5)


def test_the_convolution_sees_four_steps_and_no_future() -> None:
    inputs, found = played("causal_conv1d")
    x, weight, bias = (each.double() for each in inputs.values())
    wanted = bias.expand_as(x).clone()
    for back in range(4):
        wanted[:, back:] += weight[:, 3 - back] * x[:, : x.shape[1] - back]
    near(found["y"], F.silu(wanted))


@pytest.mark.parametrize("workload", [0, 1, 2])
def test_the_gradient_of_an_embedding_is_that_of_autograd(workload: int) -> None:
    inputs, found = played("embedding_gradient", workload)
    grad_output, ids, table_rows = inputs.values()
    table = torch.zeros(table_rows, grad_output.shape[1], dtype=torch.float64, requires_grad=True)
    F.embedding(ids, table).backward(grad_output.double())
    near(found["grad_table"], table.grad, 1e-2)


def test_ids_of_tokens_are_frequent_in_the_order_of_their_number() -> None:
    problem = load_problem(OWN / "embedding_gradient")
    made = Reference(problem.definition, "cpu").generate({"tokens": 20_000, "vocabulary": 1000, "width": 8})
    counts = torch.bincount(made["ids"], minlength=1000).float()
    assert len(counts) == 1000
    assert counts[0] > 3 * counts[9] > 0 and counts[:10].mean() > 30 * counts[500:].mean() > 0


def test_wkv_is_a_mean_whose_weights_fade() -> None:
    inputs, found = played("wkv_decay")
    k, v, log_rate, bonus = (each.double() for each in inputs.values())
    for time in range(k.shape[1]):
        age = torch.arange(time - 1, -1, -1, dtype=torch.float64)[:, None]
        past = k[:, :time] - age * log_rate.exp()
        weights = torch.cat([past, (k[:, time] + bonus)[:, None]], dim=1).softmax(1)
        near(found["wkv"][:, time], (weights * v[:, : time + 1]).sum(1), 1e-5)
