"""Group-limited expert choice in one pass: 4 bytes an expert and token read, 64 a token written.

Eager torch launches some fifteen kernels, three of them selections; here the scores of a token stay in the registers of
one warp. The two best of a group are two maxima; a group is kept where fewer than four are better, by comparing
all pairs; the best experts are eight rounds of a maximum over what is left. Equal ones go to the lower index. The
routing is that of DeepSeek-AI 2024, "DeepSeek-V3", section 2.1.2.
"""

import torch
import triton
import triton.language as tl

GROUPS, KEPT_GROUPS, CHOSEN, SUM = 8, 4, 8, 2.5
TOKENS = 4  # of a program, one a warp


@triton.jit
def moe_gating(
    logits, bias, weights, indices, tokens,
    SUM: tl.constexpr, GROUPS: tl.constexpr, KEPT_GROUPS: tl.constexpr, CHOSEN: tl.constexpr,
    SIZE: tl.constexpr, WIDE: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    group, member, slot = tl.arange(0, GROUPS), tl.arange(0, WIDE), tl.arange(0, CHOSEN)
    expert = group[:, None] * SIZE + member[None, :]
    real = member < SIZE
    place = token.to(tl.int64)[:, None, None] * (GROUPS * SIZE) + expert[None, :, :]
    logit = tl.load(logits + place, mask=(token < tokens)[:, None, None] & real[None, None, :], other=0.0)
    score = 1.0 / (1.0 + tl.exp(-logit))
    added = tl.load(bias + expert, mask=real[None, :], other=0.0)
    choice = tl.where(real[None, None, :], score + added[None, :, :], float("-inf"))

    best, where = tl.max(choice, axis=2, return_indices=True)
    second = tl.max(tl.where(member[None, None, :] == where[:, :, None], float("-inf"), choice), axis=2)
    ours = (best + second)[:, :, None]
    theirs = (best + second)[:, None, :]
    better = (theirs > ours) | ((theirs == ours) & (group[None, None, :] < group[None, :, None]))
    kept = tl.sum(better.to(tl.int32), axis=2) < KEPT_GROUPS

    left = tl.reshape(tl.where(kept[:, :, None], choice, float("-inf")), (TOKENS, GROUPS * WIDE))
    score = tl.reshape(score, (TOKENS, GROUPS * WIDE))
    column = tl.arange(0, GROUPS * WIDE)[None, :]
    found = tl.zeros((TOKENS, CHOSEN), tl.int32)
    weight = tl.zeros((TOKENS, CHOSEN), tl.float32)
    for turn in tl.static_range(CHOSEN):
        _, at = tl.max(left, axis=1, return_indices=True)
        hit = column == at[:, None]
        taken = tl.sum(tl.where(hit, score, 0.0), axis=1)
        left = tl.where(hit, float("-inf"), left)
        now = slot[None, :] == turn
        found = tl.where(now, (at // WIDE * SIZE + at % WIDE)[:, None], found)
        weight = tl.where(now, taken[:, None], weight)
    weight = SUM * weight / tl.sum(weight, axis=1)[:, None]
    to = token.to(tl.int64)[:, None] * CHOSEN + slot[None, :]
    inside = (token < tokens)[:, None]
    tl.store(weights + to, weight, mask=inside)
    tl.store(indices + to, found, mask=inside)


def run(logits: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """logits (tokens, 8 size), bias (8 size,), float32, to weights, float32, and indices, int32, (tokens, 8)."""
    logits, bias = logits.contiguous(), bias.contiguous()
    tokens, experts = logits.shape
    weights = torch.empty((tokens, CHOSEN), dtype=torch.float32, device=logits.device)
    indices = torch.empty((tokens, CHOSEN), dtype=torch.int32, device=logits.device)
    size = experts // GROUPS
    moe_gating[(triton.cdiv(tokens, TOKENS),)](
        logits, bias, weights, indices, tokens, SUM=SUM, GROUPS=GROUPS, KEPT_GROUPS=KEPT_GROUPS, CHOSEN=CHOSEN,
        SIZE=size, WIDE=triton.next_power_of_2(size), TOKENS=TOKENS, num_warps=TOKENS,
    )  # fmt: skip
    return weights, indices
