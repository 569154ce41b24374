"""RMS norm of rows of any width in one pass, with a residual before or after it; statistics in float32.

A row stays in the registers of a program: read once, written once. Number of warps and rows a program are found by
trying, once for each width.
"""

import os

import torch
import triton
import triton.language as tl

WARPS = (1, 2, 4, 8, 16)
IN_FLIGHT = 4096  # elements of a program at most, where rows are narrow
CONFIGS = [triton.Config({"ROWS": rows}, num_warps=warps) for rows in (1, 4, 16) for warps in WARPS]
if os.environ.get("TRITON_INTERPRET"):
    CONFIGS = CONFIGS[5:6]  # nothing to measure there


def sensible(configs, arguments, **constants):
    """Without those whose programs would hold too much, or too little for their warps."""
    wide = constants["WIDTH"]
    kept = [each for each in configs if each.kwargs["ROWS"] == 1 or each.kwargs["ROWS"] * wide <= IN_FLIGHT]
    kept = [each for each in kept if each.num_warps * 32 <= max(32, each.kwargs["ROWS"] * wide)]
    return kept or configs[:1]


@triton.autotune(CONFIGS, key=["width"], prune_configs_by={"early_config_prune": sensible})
@triton.jit
def row_norm(
    x, residual, weight, y, total, rows, width, eps,
    BEFORE: tl.constexpr, AFTER: tl.constexpr, ROUNDED: tl.constexpr, GIVES_SUM: tl.constexpr,
    WIDTH: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, WIDTH)[None, :]
    inside = (row < rows) & (column < width)
    at = row * width + column
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    if BEFORE:
        value += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
        if GIVES_SUM:
            tl.store(total + at, value.to(total.dtype.element_ty), mask=inside)
        if ROUNDED:
            value = value.to(y.dtype.element_ty).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, axis=1) / width + eps)
    factor = tl.load(weight + column, mask=column < width, other=0.0).to(tl.float32)
    value = value * scale[:, None] * factor
    if AFTER:
        value += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + at, value.to(y.dtype.element_ty), mask=inside)


def normalised(x, residual, weight, eps, before, after, rounded, gives_sum):
    """x and residual (..., width), weight (width,), to y of the shape of x, and the sum where it is asked for."""
    x, residual, weight = x.contiguous(), residual.contiguous(), weight.contiguous()
    width = x.shape[-1]
    rows = x.numel() // width
    y = torch.empty_like(x)
    total = torch.empty_like(x) if gives_sum else y

    def grid(constants):
        return (triton.cdiv(rows, constants["ROWS"]),)

    row_norm[grid](
        x, residual, weight, y, total, rows, width, eps, BEFORE=before, AFTER=after, ROUNDED=rounded,
        GIVES_SUM=gives_sum, WIDTH=triton.next_power_of_2(width),
    )  # fmt: skip
    return (y, total) if gives_sum else y
