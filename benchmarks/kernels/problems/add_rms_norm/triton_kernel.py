"""Residual addition and RMS norm in one pass: two reads and two writes of 2 bytes, 8 bytes an element.

The sum is rounded to bfloat16 before it is squared, as the reference rounds it, and stays in registers. One program
takes a row, or several narrow ones.
"""

import torch
import triton
import triton.language as tl

EPSILON = 1e-6
IN_FLIGHT = 2048  # elements a program loads at least


@triton.jit
def add_rms_norm(
    x, residual, gain, y, total, rows, width, EPSILON: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, WIDTH)[None, :]
    inside = (row < rows) & (column < width)
    at = row * width + column
    added = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    stream = added + tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    rounded = stream.to(tl.bfloat16)
    tl.store(total + at, rounded, mask=inside)
    value = rounded.to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, axis=1) / width + EPSILON)
    factor = tl.load(gain + column, mask=column < width, other=0.0).to(tl.float32)
    tl.store(y + at, (value * scale[:, None] * factor).to(tl.bfloat16), mask=inside)


def run(x: torch.Tensor, residual: torch.Tensor, gain: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x and residual (rows, width) and gain (width,), bfloat16, to y and total (rows, width)."""
    x, residual, gain = x.contiguous(), residual.contiguous(), gain.contiguous()
    rows, width = x.shape
    y, total = torch.empty_like(x), torch.empty_like(x)
    block = triton.next_power_of_2(width)
    together = max(1, min(16, IN_FLIGHT // block))
    warps = max(1, min(16, block * together // 512))
    grid = (triton.cdiv(rows, together),)
    add_rms_norm[grid](
        x, residual, gain, y, total, rows, width, EPSILON=EPSILON, ROWS=together, WIDTH=block, num_warps=warps
    )
    return y, total
