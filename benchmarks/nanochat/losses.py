"""Scores to losses: the log-softmax of each row in float32, of which only the target's part is kept.

`naive` says it in torch, `fused` reads every score once and writes one number a row. A row with a score that is no
finite number comes out as NaN.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import torch
import triton
import triton.language as tl

Losses = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
_ROWS = 1024  # a float32 copy of so many rows at once
_EXPONENT = tl.constexpr(0x7F800000)  # all ones in infinity and NaN alone; no compiler flag changes what bits say


def naive(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """scores [N, V], targets int64 [N] -> nats, float32 [N]."""
    found = torch.empty(len(scores), dtype=torch.float32, device=scores.device)
    for at in range(0, len(scores), _ROWS):
        part = scores[at : at + _ROWS].float()
        picked = part.gather(1, targets[at : at + _ROWS, None])[:, 0]
        nats = torch.logsumexp(part, 1) - picked
        found[at : at + _ROWS] = torch.where(torch.isfinite(part).all(1), nats, torch.nan)
    return found


def fused(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The same by one Triton program a row; the row (16 KB of 8,192 bf16 scores) stays in registers."""
    rows, width = scores.shape
    found = torch.empty(rows, dtype=torch.float32, device=scores.device)
    block = triton.next_power_of_2(width)
    _row[(rows,)](scores, targets, found, width, scores.stride(0), BLOCK=block, num_warps=8 if block >= 4096 else 4)
    return found


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _row(scores, targets, found, width, stride, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def, unused-ignore]
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    values = tl.load(scores + row * stride + columns, mask=inside, other=0.0).to(tl.float32)
    broken = (values.to(tl.int32, bitcast=True) & _EXPONENT) == _EXPONENT
    top = tl.max(tl.where(inside, values, float("-inf")), 0)
    total = tl.sum(tl.where(inside, tl.exp(values - top), 0.0), 0)
    picked = tl.sum(tl.where(columns == tl.load(targets + row), values, 0.0), 0)
    nats = tl.log(total) + top - picked
    tl.store(found + row, tl.where(tl.sum(broken.to(tl.int32), 0) > 0, float("nan"), nats))


def pick(device: torch.device, vocabulary: int) -> Losses:
    """`fused` on a GPU where it can be compiled and agrees, `naive` elsewhere."""
    if device.type != "cuda":
        return naive
    drawn = torch.Generator(device=device).manual_seed(1)
    scores = torch.randn(64, vocabulary, device=device, generator=drawn).mul(4).bfloat16()
    targets = torch.randint(vocabulary, (64,), device=device, generator=drawn)
    try:
        apart = (fused(scores, targets) - naive(scores, targets)).abs().max().item()
    except (RuntimeError, OSError, subprocess.SubprocessError) as problem:  # no C compiler, for one
        print(f"the judge works without its fused kernel: {problem}", file=sys.stderr)
        return naive
    if not apart < 1e-4:
        print(f"the judge's fused kernel is off by {apart:.2g} nats and is not used", file=sys.stderr)
        return naive
    return fused
