"""Attention of one query a sequence, split over the cache: keys and values are read once, 2 bytes each.

The query heads that share a cache head are one tile, so that the cache is read once for all of them and the tensor
cores multiply it. One program a cache head would leave most multiprocessors idle, so several share the length, each
with its own maximum and sum, and a second kernel weighs what they found (Dao et al. 2023, "Flash-Decoding"). Where one
part is enough the first kernel writes the result itself. Scores are in powers of two: exp2 is one instruction.
"""

import math

import torch
import triton
import triton.language as tl

KEYS = 64
PROGRAMS = 528  # wanted: 4 on each of 132 multiprocessors
LEAST = 256  # keys of a part
MOST_PARTS = 128
LN2 = math.log(2)


@triton.jit
def attend_part(
    q, k, v, out, lse, length, part, scale, kv_heads, parts,
    WHOLE: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, KEYS: tl.constexpr,
    LN2: tl.constexpr,
):  # fmt: skip
    """Means and log-sums of one part of one cache head. `scale` is log2(e) over the root of the width."""
    batch, head = tl.program_id(0) // kv_heads, tl.program_id(0) % kv_heads
    begin = tl.program_id(1) * part
    end = tl.minimum(begin + part, length)
    row, column = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    inside = (row < GROUP)[:, None]
    heads = tl.program_id(0) * GROUP + row  # of all sequences
    query = tl.load(q + heads[:, None] * WIDTH + column[None, :], mask=inside, other=0.0)
    stride = kv_heads * WIDTH
    base = (batch.to(tl.int64) * length * kv_heads + head) * WIDTH
    peak = tl.full((ROWS,), float("-inf"), tl.float32)
    below = tl.zeros((ROWS,), tl.float32)
    above = tl.zeros((ROWS, WIDTH), tl.float32)
    for start in range(begin, end, KEYS):
        at = start + tl.arange(0, KEYS)
        place = base + at.to(tl.int64)[:, None] * stride + column[None, :]
        key = tl.load(k + place, mask=(at < end)[:, None], other=0.0)
        value = tl.load(v + place, mask=(at < end)[:, None], other=0.0)
        score = tl.where((at < end)[None, :], tl.dot(query, key.T) * scale, float("-inf"))
        highest = tl.maximum(peak, tl.max(score, axis=1))
        weight = tl.exp2(score - highest[:, None])
        fade = tl.exp2(peak - highest)
        below = below * fade + tl.sum(weight, axis=1)
        above = tl.dot(weight.to(tl.bfloat16), value, above * fade[:, None])
        peak = highest
    to = heads if WHOLE else heads * parts + tl.program_id(1)
    mean = above / below[:, None]
    tl.store(out + to[:, None] * WIDTH + column[None, :], mean.to(tl.bfloat16) if WHOLE else mean, mask=inside)
    tl.store(lse + to, (peak + tl.log2(below)) * LN2, mask=row < GROUP)


@triton.jit
def join_parts(means, sums, out, lse, parts, PARTS: tl.constexpr, WIDTH: tl.constexpr):
    """One query head: the means of its parts, each by its share of the sum."""
    head, part, column = tl.program_id(0), tl.arange(0, PARTS), tl.arange(0, WIDTH)
    each = tl.load(sums + head * parts + part, mask=part < parts, other=float("-inf"))
    peak = tl.max(each, axis=0)
    share = tl.exp(each - peak)
    total = tl.sum(share, axis=0)
    place = (head * parts + part)[:, None] * WIDTH + column[None, :]
    mean = tl.load(means + place, mask=(part < parts)[:, None], other=0.0)
    found = tl.sum(mean * (share / total)[:, None], axis=0)
    tl.store(out + head * WIDTH + column, found.to(tl.bfloat16))
    tl.store(lse + head, peak + tl.log(total))


def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """q (batch, heads, width), k and v (batch, length, kv_heads, width), bfloat16, width a power of two from 16.

    To means of the shape of q, bfloat16, and log-sums (batch, heads), float32.
    """
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    (batch, heads, width), (length, kv_heads) = q.shape, k.shape[1:3]
    group = heads // kv_heads
    out, lse = torch.empty_like(q), torch.empty((batch, heads), dtype=torch.float32, device=q.device)
    wanted = max(1, min(MOST_PARTS, triton.cdiv(PROGRAMS, batch * kv_heads), length // LEAST))
    part = triton.cdiv(triton.cdiv(length, wanted), KEYS) * KEYS
    parts = triton.cdiv(length, part)
    means, sums = out, lse
    if parts > 1:
        means = torch.empty((batch * heads, parts, width), dtype=torch.float32, device=q.device)
        sums = torch.empty((batch * heads, parts), dtype=torch.float32, device=q.device)
    attend_part[(batch * kv_heads, parts)](
        q, k, v, means, sums, length, part, math.log2(math.e) * width**-0.5, kv_heads, parts,
        WHOLE=parts == 1, GROUP=group, ROWS=max(16, triton.next_power_of_2(group)), WIDTH=width, KEYS=KEYS, LN2=LN2,
        num_warps=4, num_stages=3,
    )  # fmt: skip
    if parts > 1:
        join_parts[(batch * heads,)](means, sums, out, lse, parts, PARTS=triton.next_power_of_2(parts), WIDTH=width)
    return out, lse
