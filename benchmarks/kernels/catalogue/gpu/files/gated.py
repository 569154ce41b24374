"""A gated activation in one pass: gate and value are read once, their product is written once.

The size of a block and its warps are found by trying, once for each width.
"""

import os

import torch
import triton
import triton.language as tl

CONFIGS = [triton.Config({"BLOCK": block}, num_warps=warps) for block in (512, 1024, 2048, 4096) for warps in (4, 8)]
if os.environ.get("TRITON_INTERPRET"):
    CONFIGS = CONFIGS[:1]  # nothing to measure there


@triton.autotune(CONFIGS, key=["width"])
@triton.jit
def gated(gate, value, y, width, of_gate, of_value, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    x = tl.load(gate + row * of_gate + column, mask=inside, other=0.0).to(tl.float32)
    if ACTIVATION == "silu":
        bent = x * tl.sigmoid(x)
    elif ACTIVATION == "gelu_tanh":
        bent = x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))  # 2 sqrt(2 / pi)
    else:
        bent = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    other = tl.load(value + row * of_value + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + row * width + column, (bent * other).to(y.dtype.element_ty), mask=inside)


def product(gate, value, width, activation):
    """gate and value: rows of the same number, `width` of each used from where the tensor begins, to y (..., width)."""
    y = torch.empty((*gate.shape[:-1], width), dtype=gate.dtype, device=gate.device)
    rows = y.numel() // width

    def grid(constants):
        return (rows, triton.cdiv(width, constants["BLOCK"]))

    of_gate, of_value = (each.stride(-2) if each.dim() > 1 else width for each in (gate, value))
    gated[grid](gate, value, y, width, of_gate, of_value, ACTIVATION=activation)
    return y
