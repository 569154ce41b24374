"""SiLU backward in one pass: 12 bytes an element (two reads, one write, float32), which is the least there is.

Eager torch launches several kernels and writes every intermediate to memory; here all of them stay in registers.
Element-wise fusion is as in the Triton tutorial on vector addition; offsets are 64-bit, so size is not limited.
"""

import torch
import triton
import triton.language as tl

BLOCK = 1024


@triton.jit
def silu_backward(grad_output, x, grad_x, count, BLOCK: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < count
    grad = tl.load(grad_output + offsets, mask=inside)
    value = tl.load(x + offsets, mask=inside)
    gate = 1.0 / (1.0 + tl.exp(-value))
    tl.store(grad_x + offsets, grad * (gate + value * gate * (1.0 - gate)), mask=inside)


def run(grad_output: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The gradient of x. Shapes: both (rows, columns), float32."""
    grad_output, x = grad_output.contiguous(), x.contiguous()
    grad_x = torch.empty_like(x)
    count = x.numel()
    silu_backward[(triton.cdiv(count, BLOCK),)](grad_output, x, grad_x, count, BLOCK=BLOCK)
    return grad_x
