"""Cross-entropy and its gradient in one launch: logits are read twice, the second time from L2, the gradient written.

Bytes: 2 read from memory and 2 written an element; eager torch keeps two tensors in float32 beside them. The first walk
over a row finds maximum and sum together (Milakov and Gimelshein 2018, "Online normalizer calculation for softmax"),
the second writes the gradient, while the row is still in L2 (as in Liger-Kernel's cross_entropy, Hsu et al. 2024).
"""

import torch
import triton
import triton.language as tl

BLOCK = 4096
WARPS = 8


@triton.jit
def cross_entropy(logits, targets, loss, grad_logits, vocabulary, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    logits += token * vocabulary
    grad_logits += token * vocabulary
    target = tl.load(targets + token)
    column = tl.arange(0, BLOCK)
    peak = tl.full((BLOCK,), -3e38, tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, vocabulary, BLOCK):
        at = start + column
        value = tl.load(logits + at, mask=at < vocabulary, other=-3e38).to(tl.float32)
        highest = tl.maximum(peak, value)
        now = tl.where(at < vocabulary, tl.exp(value - highest), 0.0)
        total = total * tl.exp(peak - highest) + now
        peak = highest
    most = tl.max(peak, axis=0)
    log_sum = most + tl.log(tl.sum(total * tl.exp(peak - most), axis=0))
    tl.store(loss + token, log_sum - tl.load(logits + target).to(tl.float32))
    for start in range(0, vocabulary, BLOCK):
        at = start + column
        value = tl.load(logits + at, mask=at < vocabulary, other=0.0).to(tl.float32)
        share = tl.exp(value - log_sum) - tl.where(at == target, 1.0, 0.0)
        tl.store(grad_logits + at, share.to(tl.bfloat16), mask=at < vocabulary)


def run(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """logits (tokens, vocabulary), bfloat16, and targets (tokens,), int64, to loss, float32, and the gradient."""
    logits, targets = logits.contiguous(), targets.contiguous()
    tokens, vocabulary = logits.shape
    loss = torch.empty((tokens,), dtype=torch.float32, device=logits.device)
    grad_logits = torch.empty_like(logits)
    block = min(BLOCK, triton.next_power_of_2(vocabulary))
    cross_entropy[(tokens,)](logits, targets, loss, grad_logits, vocabulary, BLOCK=block, num_warps=WARPS)
    return loss, grad_logits
