"""Softcapped softmax in one pass: a row is read once and written once, 4 bytes an element.

The cap bounds every score, so exp(score - cap) neither overflows nor vanishes in float32 (at least e^-60), and no
maximum has to be found before the sum: one reduction a row instead of two. tanh by a sigmoid: 2 sigmoid(2 u) - 1.
"""

import torch
import triton
import triton.language as tl

CAP = 30.0
IN_FLIGHT = 2048  # elements a program loads at least


@triton.jit
def softcapped_softmax(scores, weights, rows, width, CAP: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, WIDTH)[None, :]
    inside = (row < rows) & (column < width)
    at = row * width + column
    score = tl.load(scores + at, mask=inside, other=0.0).to(tl.float32)
    capped = CAP * (2.0 * tl.sigmoid(2.0 / CAP * score) - 1.0)
    weight = tl.where(inside, tl.exp(capped - CAP), 0.0)
    total = tl.sum(weight, axis=1)
    safe = tl.where(total > 0.0, total, 1.0)  # rows beyond the last one
    tl.store(weights + at, (weight / safe[:, None]).to(tl.bfloat16), mask=inside)


def run(scores: torch.Tensor) -> torch.Tensor:
    """scores (rows, width), bfloat16, to weights of the same shape."""
    scores = scores.contiguous()
    rows, width = scores.shape
    weights = torch.empty_like(scores)
    block = triton.next_power_of_2(width)
    together = max(1, min(16, IN_FLIGHT // block))
    warps = max(1, min(16, block * together // 512))
    grid = (triton.cdiv(rows, together),)
    softcapped_softmax[grid](scores, weights, rows, width, CAP=CAP, ROWS=together, WIDTH=block, num_warps=warps)
    return weights
