"""Which family a kernel problem belongs to."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.kernels.families import Family, calls_of, family_of
from benchmarks.kernels.formats.loader import OWN, load_problem, load_problems
from tests.kernel_play import problem

OURS = {
    "add_rms_norm": Family.NORM, "causal_conv1d": Family.CONVOLUTION, "embedding_gradient": Family.SCATTER,
    "fp8_block_gemm": Family.SCALED_GEMM, "geglu_tanh": Family.GATED_ACTIVATION, "gemm_bias_gelu": Family.GEMM,
    "gqa_decode": Family.DECODE, "gqa_prefill": Family.ATTENTION, "moe_gating": Family.TOP_K, "rms_norm": Family.NORM,
    "rms_norm_backward": Family.NORM_BACKWARD, "rope": Family.ROPE, "cross_entropy": Family.CROSS_ENTROPY,
    "silu_backward": Family.ELEMENTWISE, "skinny_gemm": Family.SKINNY_GEMM, "softcapped_softmax": Family.SOFTMAX,
    "swiglu_gate_up": Family.GEMM, "wkv_decay": Family.SCAN,
}  # fmt: skip
OTHERS = [
    ("rms_norm_of_sum_backward", "return x * torch.rsqrt(x.square().mean(-1, keepdim=True))", Family.NORM_BACKWARD),
    ("007_row_layer_norm", "return F.layer_norm(x, x.shape[-1:])", Family.NORM),
    ("a_mean", "return x * torch.rsqrt(x.square().mean())", Family.NORM),
    ("rotary_halves", "return x * torch.cos(x)", Family.ROPE),
    ("angles", "return torch.outer(x[0], x[0]).cos()", Family.ROPE),
    ("vocabulary_cross_entropy", "return F.log_softmax(x, -1)", Family.CROSS_ENTROPY),
    ("picking", "return F.cross_entropy(x, x)", Family.CROSS_ENTROPY),
    ("swiglu_of_halves", "a, b = x.chunk(2, -1); return F.silu(a) * b", Family.GATED_ACTIVATION),
    ("swiglu_layer", "return F.silu(x @ x.T)", Family.GEMM),
    ("attention_of_pages", "return (x @ x.T).softmax(-1) @ x", Family.ATTENTION),
    ("attention_output_projection", "return F.linear(x, x)", Family.GEMM),
    ("paged_decode_attention", "return (x @ x.T).softmax(-1) @ x", Family.DECODE),
    ("decoder_layer_norm_and_attention", "return (x @ x.T).softmax(-1) @ x", Family.LAYER),
    ("expert_forward", "return F.silu(x @ x.T)", Family.MOE),
    ("expert_choice_topk", "return x.topk(2).values", Family.TOP_K),
    ("fp8_linear", "return x.to(torch.float8_e4m3fn).float() @ x.T", Family.SCALED_GEMM),
    ("depthwise", "return F.conv1d(x, x)", Family.CONVOLUTION),
    ("running_total", "return x.cumsum(0)", Family.SCAN),
    ("table_of_sums", "return x.index_add_(0, x, x)", Family.SCATTER),
    ("bent", "return torch.where(x > 0, x, x.exp() - 1)", Family.ELEMENTWISE),
    ("gelu_by_hand", "return x / (1 + 2.718281828 ** -x)", Family.ELEMENTWISE),
    ("sorted", "return x.sort().values", Family.OTHER),
]  # fmt: skip


def test_every_problem_of_our_own_is_in_its_family() -> None:
    names = [path.parent.name for path in OWN.glob("*/definition.json")]
    assert {name: family_of(load_problem(OWN / name).definition) for name in names} == OURS


@pytest.mark.parametrize(("name", "body", "family"), OTHERS)
def test_a_family_is_told_by_the_name_or_by_what_the_reference_calls(
    name: str, body: str, family: Family, tmp_path: Path
) -> None:
    tensor = ("n", "float32")
    assert family_of(problem(tmp_path / name, {"x": tensor}, {"y": tensor}, body).definition) is family


def test_a_matmul_of_fixed_few_rows_is_skinny(tmp_path: Path) -> None:
    def of(rows: int) -> Family:
        axes = {"rows": {"type": "const", "value": rows}, "n": {"type": "var"}}
        inputs, outputs = {"x": ("rows,n", "float32")}, {"y": ("rows,rows", "float32")}
        made = problem(tmp_path / "product", inputs, outputs, "return x @ x.T", axes=axes)
        return family_of(made.definition)

    assert (of(16), of(4096)) == (Family.SKINNY_GEMM, Family.GEMM)


def test_calls_are_named_by_their_last_part() -> None:
    assert calls_of("y = torch.nn.functional.silu(f(x) @ x.float())") == {"silu", "f", "@", "float"}


def test_nearly_all_official_problems_have_a_family() -> None:
    folder = os.environ.get("KERNEL_PROBLEMS")
    if not folder:
        pytest.skip("KERNEL_PROBLEMS names no folder of the official problems")
    count = Counter(family_of(each.definition) for each in load_problems(Path(folder)))
    assert count[Family.OTHER] <= 0.02 * count.total(), count
    assert len(count) >= 12
