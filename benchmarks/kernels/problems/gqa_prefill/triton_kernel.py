"""Causal attention in one pass: scores stay in registers, and only tiles up to the diagonal are computed.

Bytes: queries, keys and values read, means written, 2 each; the keys and values of a head come from L2 for all but the
first tile. The maximum and sum of a row move along with the keys (Dao 2023, "FlashAttention-2"); tiles left of the
diagonal need no mask, so they have a loop of their own. The longest rows start first: a long one that starts last would
run alone. Tiles come by bulk copies (TMA), which also end a sequence where it ends; exp2 is one instruction.
"""

import math

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

QUERIES, KEYS = 128, 128
WARPS, STAGES = 8, 2


@triton.jit
def attend(query, k, v, above, below, peak, batch, column, begin, end, at, scale,
           MASKED: tl.constexpr, KEYS: tl.constexpr, WIDTH: tl.constexpr):  # fmt: skip
    """Take in the keys from begin to end. above [queries, width]; below, peak and at, the time, [queries]."""
    for start in range(begin, end, KEYS):
        key = tl.reshape(k.load([batch, start, column]), (KEYS, WIDTH))
        score = tl.dot(query, key.T) * scale
        if MASKED:
            score = tl.where(at[:, None] >= start + tl.arange(0, KEYS)[None, :], score, float("-inf"))
        highest = tl.maximum(peak, tl.max(score, axis=1))
        weight = tl.exp2(score - highest[:, None])
        fade = tl.exp2(peak - highest)
        below = below * fade + tl.sum(weight, axis=1)
        value = tl.reshape(v.load([batch, start, column]), (KEYS, WIDTH))
        above = tl.dot(weight.to(tl.bfloat16), value, above * fade[:, None])
        peak = highest
    return above, below, peak


@triton.jit
def gqa_prefill(
    q, k, v, out, length, heads, scale,
    GROUP: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    begin = (tl.num_programs(1) - 1 - tl.program_id(1)) * QUERIES
    batch, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    column = head // GROUP * WIDTH
    at = begin + tl.arange(0, QUERIES)
    query = tl.reshape(q.load([batch, begin, head * WIDTH]), (QUERIES, WIDTH))
    peak = tl.full((QUERIES,), float("-inf"), tl.float32)
    below = tl.zeros((QUERIES,), tl.float32)
    above = tl.zeros((QUERIES, WIDTH), tl.float32)
    above, below, peak = attend(query, k, v, above, below, peak, batch, column, 0, begin, at, scale, False, KEYS, WIDTH)
    end = tl.minimum(begin + QUERIES, length)
    above, below, peak = attend(
        query, k, v, above, below, peak, batch, column, begin, end, at, scale, True, KEYS, WIDTH
    )
    mean = (above / below[:, None]).to(tl.bfloat16)
    out.store([batch, begin, head * WIDTH], tl.reshape(mean, (1, QUERIES, WIDTH)))


def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """q (batch, length, heads, width), k and v (batch, length, kv_heads, width), bfloat16, to means like q.

    width is a power of two from 16.
    """
    batch, length, heads, width = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    query, result, key, value = (
        TensorDescriptor.from_tensor(each.contiguous().flatten(2), [1, high, width])
        for each, high in ((q, QUERIES), (out, QUERIES), (k, KEYS), (v, KEYS))
    )
    gqa_prefill[(batch * heads, triton.cdiv(length, QUERIES))](
        query, key, value, result, length, heads, math.log2(math.e) * width**-0.5,
        GROUP=heads // k.shape[2], QUERIES=QUERIES, KEYS=KEYS, WIDTH=width, num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip
    return out
