"""Rotary embedding of queries and keys in one launch: 4 bytes an element, each read and written once.

A program turns some heads of one position, so that cosines and sines are read once for all of them; queries and keys
are two ranges of the same grid (the pairing of halves as in GPT-NeoX; one launch for both as in Liger-Kernel's rope).
"""

import torch
import triton
import triton.language as tl

IN_FLIGHT = 1024  # pairs that a program turns at most


@triton.jit
def turn(x, y, heads, first, half, cos, sin, HEADS: tl.constexpr, HALF: tl.constexpr):
    """Heads from `first` on of the position that x and y point at."""
    head, pair = first + tl.arange(0, HEADS)[:, None], tl.arange(0, HALF)[None, :]
    inside = (head < heads) & (pair < half)
    at = head * (2 * half) + pair
    left = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    right = tl.load(x + at + half, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + at, (left * cos - right * sin).to(tl.bfloat16), mask=inside)
    tl.store(y + at + half, (right * cos + left * sin).to(tl.bfloat16), mask=inside)


@triton.jit
def rope(
    q, k, cos, sin, turned_q, turned_k, length, heads, kv_heads, half, q_parts,
    HEADS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    position = tl.program_id(0).to(tl.int64)
    pair = tl.arange(0, HALF)[None, :]
    angle = position % length * half + pair
    cosine = tl.load(cos + angle, mask=pair < half, other=0.0)
    sine = tl.load(sin + angle, mask=pair < half, other=0.0)
    part = tl.program_id(1)
    if part < q_parts:
        place = position * heads * (2 * half)
        turn(q + place, turned_q + place, heads, part * HEADS, half, cosine, sine, HEADS, HALF)
    else:
        place = position * kv_heads * (2 * half)
        turn(k + place, turned_k + place, kv_heads, (part - q_parts) * HEADS, half, cosine, sine, HEADS, HALF)


def run(q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """q (batch, length, heads, width), k (..., kv_heads, width), bfloat16, cos and sin (length, width / 2), float32."""
    q, k, cos, sin = q.contiguous(), k.contiguous(), cos.contiguous(), sin.contiguous()
    batch, length, heads, width = q.shape
    kv_heads, half = k.shape[2], width // 2
    turned_q, turned_k = torch.empty_like(q), torch.empty_like(k)
    block = triton.next_power_of_2(half)
    together = max(1, min(triton.next_power_of_2(max(heads, kv_heads)), IN_FLIGHT // block))
    q_parts, k_parts = triton.cdiv(heads, together), triton.cdiv(kv_heads, together)
    rope[(batch * length, q_parts + k_parts)](
        q, k, cos, sin, turned_q, turned_k, length, heads, kv_heads, half, q_parts, HEADS=together, HALF=block,
        num_warps=4,
    )  # fmt: skip
    return turned_q, turned_k
