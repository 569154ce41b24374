"""Both gradients of an RMS norm in one pass over the rows: two reads and a write of 2 bytes, 6 bytes an element.

A program walks over many rows and keeps its share of the gain's gradient in registers, so that this costs one float32
row a program instead of a second pass; a second kernel adds the shares in a fixed order, and every run gives the same
digits (as in Liger-Kernel's rms_norm, Hsu et al. 2024).
"""

import torch
import triton
import triton.language as tl

EPSILON = 1e-6
PROGRAMS = 528  # 4 on each of 132 multiprocessors
COLUMNS = 64  # that a program of the second kernel adds up
SHARES = 64  # that it takes at a time


@triton.jit
def rms_norm_backward(
    grad_output, x, gain, grad_x, shares, rows, width, EPSILON: tl.constexpr, WIDTH: tl.constexpr
):  # fmt: skip
    column = tl.arange(0, WIDTH)
    inside = column < width
    factor = tl.load(gain + column, mask=inside, other=0.0).to(tl.float32)
    share = tl.zeros((WIDTH,), tl.float32)
    for row in range(tl.program_id(0), rows, tl.num_programs(0)):
        at = tl.cast(row, tl.int64) * width + column
        grad = tl.load(grad_output + at, mask=inside, other=0.0).to(tl.float32)
        value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        scale = tl.rsqrt(tl.sum(value * value, axis=0) / width + EPSILON)
        normal = value * scale
        share += grad * normal
        inner = grad * factor
        found = (inner - normal * (tl.sum(inner * normal, axis=0) / width)) * scale
        tl.store(grad_x + at, found.to(tl.bfloat16), mask=inside)
    tl.store(shares + tl.program_id(0) * width + column, share, mask=inside)


@triton.jit
def sum_shares(shares, grad_gain, count, width, SHARES: tl.constexpr, COLUMNS: tl.constexpr):
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    total = tl.zeros((SHARES, COLUMNS), tl.float32)
    for first in range(0, count, SHARES):
        share = first + tl.arange(0, SHARES)[:, None]
        total += tl.load(shares + share * width + column, mask=(share < count) & (column < width), other=0.0)
    to = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    tl.store(grad_gain + to, tl.sum(total, axis=0), mask=to < width)


def run(grad_output: torch.Tensor, x: torch.Tensor, gain: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """grad_output and x (rows, width), gain (width,), bfloat16, to grad_x and grad_gain (width,), float32."""
    grad_output, x, gain = grad_output.contiguous(), x.contiguous(), gain.contiguous()
    rows, width = x.shape
    grad_x = torch.empty_like(x)
    grad_gain = torch.empty((width,), dtype=torch.float32, device=x.device)
    count, block = min(rows, PROGRAMS), triton.next_power_of_2(width)
    shares = torch.empty((count, width), dtype=torch.float32, device=x.device)
    rms_norm_backward[(count,)](
        grad_output, x, gain, grad_x, shares, rows, width,
        EPSILON=EPSILON, WIDTH=block, num_warps=max(1, min(16, block // 256)),
    )  # fmt: skip
    sum_shares[(triton.cdiv(width, COLUMNS),)](
        shares, grad_gain, count, width, SHARES=SHARES, COLUMNS=COLUMNS, num_warps=4
    )
    return grad_x, grad_gain
