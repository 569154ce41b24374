"""Which family of kernels a definition belongs to: what its techniques and the lessons about it have in common.

Told by the definition's name and kind of operation first, then by what its reference calls, last by its description.
Nothing is executed, and torch is not imported. A definition of none of them is of `Family.OTHER`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from benchmarks.kernels.formats.axes import Axis, Const
from benchmarks.kernels.formats.definition import Definition
from benchmarks.syntax import parse

SKINNY_ROWS = 64  # a matmul of at most so many rows reads its weight and does little else


class Family(StrEnum):
    NORM = "norm"
    NORM_BACKWARD = "norm_backward"
    SOFTMAX = "softmax"
    GATED_ACTIVATION = "gated_activation"
    ELEMENTWISE = "elementwise"
    ROPE = "rope"
    CROSS_ENTROPY = "cross_entropy"
    TOP_K = "top_k_gating"
    SCAN = "scan"
    GEMM = "gemm_epilogue"
    SKINNY_GEMM = "skinny_gemm"
    DECODE = "decode_attention"
    ATTENTION = "attention"
    SCALED_GEMM = "block_scaled_gemm"
    CONVOLUTION = "convolution"
    SCATTER = "scatter"
    MOE = "moe"
    LAYER = "layer"  # a whole layer or block of a model: attention, matmuls and norms in one
    OTHER = "other"


@dataclass(frozen=True)
class Traits:
    """What the rules look at."""

    name: str  # lower case, words apart by one underscore, the number before it left out
    says: str  # the description, lower case
    calls: frozenset[str]  # last parts of the names of what the reference calls; "@" for the operator
    quantised: bool  # an input, or a dtype that the reference names, has 8 bits or fewer

    @property
    def backward(self) -> bool:
        return bool(re.search(r"backward|gradient|(^|_)grad(_|$)|(^|_)bwd(_|$)", self.name))

    def named(self, pattern: str) -> bool:
        return re.search(pattern, self.name) is not None

    def does(self, *names: str) -> bool:
        return not self.calls.isdisjoint(names)

    @property
    def multiplies(self) -> bool:
        return self.does("@", "matmul", "bmm", "mm", "addmm", "baddbmm", "linear", "einsum", "_scaled_mm")

    @property
    def attends(self) -> bool:
        return self.does("scaled_dot_product_attention") or (self.multiplies and self.does("softmax", "logsumexp"))


Rule = tuple[Family, Callable[[Traits], bool]]
SMALL_FLOATS = ("float8", "float4", "e4m3", "e5m2", "e2m1", "nvfp4")
EXPERTS = r"expert|(^|_)moe(_|$)"
NORMS = r"(rms|layer|group|batch|qk|post|pre)_?norm|(^|_)norm(_|$)|layernorm"

BY_NAME: tuple[Rule, ...] = (
    (Family.LAYER, lambda of: of.named(
        r"(decoder|encoder|transformer)_.*(layer|block)|complete_(layer|forward_block)|full_block|layer_full|"
        r"transformer_block|(^|_)two_way_transformer") and not of.named(r"(^|_)moe_")),
    (Family.MOE, lambda of: of.named(EXPERTS) and of.multiplies
        and not of.named(r"rout(ing|er)|gate?$|moe_gating|top_?k|group_")),
    (Family.TOP_K, lambda of: of.named(r"top_?k|rout(er|ing)|moe_gat(e|ing)|group_score")),
    (Family.MOE, lambda of: of.named(EXPERTS) and not of.does("index_add_", "index_add", "scatter_add_")),
    (Family.CROSS_ENTROPY, lambda of: of.named(r"cross_entropy|nll_loss") or of.does("cross_entropy", "nll_loss")),
    (Family.ROPE, lambda of: of.named(r"(rope|rotary|cos_sin)(_\w+)?_embedding|rope_position|position_encoding")
        and not of.named(r"attention_(core|output)|projection") and not of.attends),
    (Family.SCATTER, lambda of: of.named(r"scatter|index_add|embedding_(grad|.*backward)")),
    (Family.DECODE, lambda of: of.named(r"decode(_|$)") and (of.attends or of.named("attention|gqa|mla"))),
    (Family.SCAN, lambda of: of.named(
        r"scan|mamba|(^|_)ssm(_|$)|wkv|delta_rule|linear_attention|segsum|cumsum|time_decay")
        and not of.named(r"projection|conv1d")),
    (Family.ATTENTION, lambda of: of.named(r"attention|prefill|sdpa|attn")
        and (of.attends or (of.backward and of.multiplies and not of.named("qkv|projection")))),
    (Family.SCALED_GEMM, lambda of: of.quantised and of.multiplies),
    (Family.CONVOLUTION, lambda of: of.named(
        r"conv(\d\w*)?(_|$)|convolution|downsampl|resnet|convnext|hyena|feature_pyramid|fft")),
    (Family.ROPE, lambda of: of.named(r"rope|rotary|cos_sin") and not of.multiplies),
    (Family.NORM_BACKWARD, lambda of: of.backward and of.named(NORMS) and not of.multiplies),
    (Family.SOFTMAX, lambda of: of.named(r"softmax") and not of.multiplies),
    (Family.NORM, lambda of: of.named(NORMS) and not of.multiplies),
    (Family.GATED_ACTIVATION, lambda of: of.named(r"(swi|ge|re|si)?glu(_|$)|gated_act") and not of.multiplies),
    (Family.SKINNY_GEMM, lambda of: of.named(r"skinny|gemv|split_?k|lm_head")),
)  # fmt: skip

BY_CODE: tuple[Rule, ...] = (
    (Family.CONVOLUTION, lambda of: of.does("conv1d", "conv2d", "conv3d", "rfft", "irfft", "conv_transpose2d")),
    (Family.ATTENTION, lambda of: of.attends),
    (Family.TOP_K, lambda of: of.does("topk") and not of.multiplies),
    (Family.GEMM, lambda of: of.multiplies),
    (Family.SCATTER, lambda of: of.does("index_add_", "index_add", "scatter_add_", "scatter_add", "index_put_")),
    (Family.NORM_BACKWARD, lambda of: of.backward and of.does("rsqrt", "layer_norm", "group_norm")),
    (Family.NORM, lambda of: of.does("rsqrt", "rms_norm", "layer_norm", "group_norm", "batch_norm")),
    (Family.SOFTMAX, lambda of: of.does("softmax", "log_softmax", "logsumexp")),
    (Family.SCAN, lambda of: of.does("cumsum", "cumprod", "logcumsumexp")),
    (Family.ROPE, lambda of: of.does("cos", "sin", "polar", "outer") and not of.does("gelu", "silu", "sigmoid")),
)  # fmt: skip

BY_TEXT: tuple[Rule, ...] = (
    (Family.ROPE, lambda of: "rotary" in of.says or "rope" in of.says.split()),
    (Family.GATED_ACTIVATION, lambda of: "gated" in of.says and of.does("silu", "gelu", "sigmoid", "tanh", "chunk")),
    (Family.MOE, lambda of: "mixture of experts" in of.says or "moe" in of.says.split()),
)

POINTWISE = {
    "silu", "gelu", "relu", "sigmoid", "tanh", "exp", "softplus", "clamp", "where", "mul", "add", "pow", "square",
    "sqrt", "erf", "maximum", "minimum", "log", "abs", "cos", "sin", "expm1", "log1p",
}  # fmt: skip
INERT = {
    "float", "to", "view", "reshape", "contiguous", "type", "half", "bfloat16", "double", "item", "size", "unsqueeze",
    "squeeze", "expand", "transpose", "permute", "flatten", "unflatten", "chunk", "split", "empty_like", "zeros_like",
    "ones_like", "sum", "mean", "no_grad", "tensor", "full_like", "clone", "expand_as", "view_as", "type_as", "sqrt",
    "len", "range", "numel", "dim",
}  # fmt: skip


def family_of(definition: Definition) -> Family:
    of = traits_of(definition)
    for rules in (BY_NAME, BY_CODE, BY_TEXT):
        for family, holds in rules:
            if holds(of):
                return _skinny(definition) if family is Family.GEMM else family
    acts = of.calls & POINTWISE or of.named(r"activation|silu|gelu|relu|sigmoid")
    if acts and of.calls <= POINTWISE | INERT:
        return Family.ELEMENTWISE
    return Family.OTHER


def traits_of(definition: Definition) -> Traits:
    name = re.sub(r"[^a-z0-9]+", "_", definition.name.lower())
    name = re.sub(r"^\d+_", "", name)
    dtypes = " ".join(spec.dtype for spec in definition.inputs.values()) + definition.reference.lower()
    quantised = any(word in dtypes for word in SMALL_FLOATS)
    return Traits(name, definition.description.lower(), calls_of(definition.reference), quantised)


@lru_cache(maxsize=512)
def calls_of(source: str) -> frozenset[str]:
    """Last parts of the names of all that a source calls; "@" where it multiplies matrices by the operator."""
    found = set()
    for node in nodes_of(source):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                found.add(node.func.attr)
            elif isinstance(node.func, ast.Name):
                found.add(node.func.id)
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            found.add("@")
    return frozenset(found)


@lru_cache(maxsize=512)
def nodes_of(source: str) -> tuple[ast.AST, ...]:
    """Every node of the syntax tree of a source, its module first."""
    return tuple(ast.walk(parse(source)))


def _skinny(definition: Definition) -> Family:
    """A matmul is skinny where an axis of its first input says that there are few rows, whatever the workload."""
    first = next(iter(definition.inputs.values()))
    rows: Axis | None = definition.axes.get(first.shape[0]) if first.shape else None
    fixed = isinstance(rows, Const) and rows.value <= SKINNY_ROWS
    return Family.SKINNY_GEMM if fixed and len(first.shape or ()) == 2 else Family.GEMM
