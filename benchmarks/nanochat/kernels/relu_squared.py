"""A linear layer and squared ReLU in one kernel, and the MLP around it with a fused backward pass.

`linear_relu_squared` is the layer alone; `relu_squared_mlp` takes the second layer as well and fuses the gradient of
the activation into the matmul that makes it. Stands alone: imports torch, and triton where it is there.

Only the squared activation is written. The backward pass needs nothing else: the slope of relu(h)^2 is 2 relu(h), the
square root of what was written (So et al. 2021, "Primer", for the activation; the modded-nanogpt records 59 and 87 for
the fused layer and for the square root).

What there is to gain, with N = 131,072 rows, C = 512 and F = 2,048: the matmul is 275 Gflop, 0.4 ms at 700 Tflop/s, and
each pass over the [N, F] activations is 0.54 GB, 0.18 ms at 3 TB/s. Forward, separate kernels make three passes (write
h, read it, write its square) and this one makes one. Backward, they make five for the gradient of h (write that of
the square, read it and h, write that of h, of which the matmul and the last write stay) and this one makes two. So a
layer may gain up to 0.9 ms, and loses what the matmul here is slower than cuBLAS.

The matmul: programs stay and take tile after tile, tiles come by bulk copies (TMA) through descriptors, and both
weights are 2 MB, so all but the first reads of them come from L2 and the order of tiles is the plain one. Tiles are
constants and not tuned at run time: two arms of a comparison must run the same kernel.

Shapes: N rows (any leading dimensions), C width, F hidden width, a multiple of 8 as C is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
    from triton.tools.tensor_descriptor import TensorDescriptor
except ImportError:  # a machine without a GPU may go without, and takes the naive ways
    triton = None


class Tile(NamedTuple):
    """What one program computes at a time, and with what."""

    rows: int
    columns: int
    inner: int
    warps: int
    stages: int
    programs: int  # a multiprocessor
    halves: bool  # the result leaves in two halves, which takes less shared memory


FORWARD_TILE = Tile(128, 256, 64, warps=8, stages=3, programs=1, halves=True)
BACKWARD_TILE = Tile(128, 256, 64, warps=8, stages=3, programs=1, halves=True)
TILES = (  # what `python -m tests.gpu.kernels --tune` tries; some take too much shared memory backward
    FORWARD_TILE,
    Tile(128, 256, 64, warps=8, stages=4, programs=1, halves=True),
    Tile(128, 256, 64, warps=8, stages=3, programs=1, halves=False),
    Tile(256, 128, 64, warps=8, stages=3, programs=1, halves=True),
    Tile(256, 128, 64, warps=8, stages=4, programs=1, halves=True),
    Tile(128, 128, 64, warps=4, stages=3, programs=2, halves=True),
    Tile(128, 128, 64, warps=8, stages=3, programs=2, halves=True),
    Tile(128, 128, 64, warps=4, stages=2, programs=2, halves=True),
    Tile(128, 128, 64, warps=8, stages=2, programs=2, halves=True),
    Tile(128, 128, 64, warps=8, stages=4, programs=1, halves=False),
    Tile(128, 128, 128, warps=8, stages=2, programs=1, halves=False),
)
_LIBRARY = __name__.replace(".", "_")  # copies of this file in one process define operators of their own


def naive_linear_relu_squared(x: Tensor, weight: Tensor, shift: float = 0.0) -> Tensor:
    """relu(x @ weight.T - shift)^2 as one writes it first: x [..., C], weight [F, C] -> [..., F].

    The weight is used in the type of x and may be kept in another one.
    """
    h = x @ weight.to(x.dtype).T
    return torch.relu(h - shift if shift else h).square()


def naive_relu_squared_mlp(x: Tensor, weight_in: Tensor, weight_out: Tensor, shift: float = 0.0) -> Tensor:
    """x [..., C], weight_in [F, C], weight_out [C, F] -> [..., C]."""
    return naive_linear_relu_squared(x, weight_in, shift) @ weight_out.to(x.dtype).T


def linear_relu_squared(x: Tensor, weight: Tensor, shift: float = 0.0) -> Tensor:
    """As the naive one, differentiable in x and weight. x is bfloat16 or float16 on a GPU, or it is the naive one."""
    if not _fast(x, weight):
        return naive_linear_relu_squared(x, weight, shift)
    return _linear(x.flatten(0, -2), weight.to(x.dtype), shift).unflatten(0, x.shape[:-1])


def relu_squared_mlp(x: Tensor, weight_in: Tensor, weight_out: Tensor, shift: float = 0.0) -> Tensor:
    """As the naive one, differentiable in x and both weights. Keeps x and the squared activation for going back."""
    if not _fast(x, weight_in):
        return naive_relu_squared_mlp(x, weight_in, weight_out, shift)
    weight_in, weight_out = weight_in.to(x.dtype), weight_out.to(x.dtype)
    y, _ = _mlp(x.flatten(0, -2), weight_in, weight_out, shift)
    return y.unflatten(0, x.shape[:-1])


def _jit(kernel):  # one build for all numbers of rows, those of scoring too
    return triton.jit(kernel, do_not_specialize=("rows",)) if triton else kernel


@_jit
def _tile_kernel(
    left, right, post, out, shift, rows, columns, inner,
    BACKWARD: tl.constexpr, HALVES: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr, BLOCK_INNER: tl.constexpr,
):  # fmt: skip
    """Tiles of out [rows, columns]: relu(left @ right.T - shift)^2, or BACKWARD 2 sqrt(post) * (left @ right)."""
    column_tiles = tl.cdiv(columns, BLOCK_COLUMNS)
    tiles = tl.cdiv(rows, BLOCK_ROWS) * column_tiles
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), flatten=True):
        row = tile // column_tiles * BLOCK_ROWS
        column = tile % column_tiles * BLOCK_COLUMNS
        total = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
        for start in range(0, inner, BLOCK_INNER):
            x = left.load([row, start])
            if BACKWARD:
                total = tl.dot(x, right.load([start, column]), total, input_precision="ieee")
            else:
                total = tl.dot(x, right.load([column, start]).T, total, input_precision="ieee")
        if HALVES:
            parts = tl.permute(tl.reshape(total, (BLOCK_ROWS, 2, BLOCK_COLUMNS // 2)), (0, 2, 1))
            first, second = tl.split(parts)
            _finish(first, post, out, shift, row, column, BACKWARD)
            _finish(second, post, out, shift, row, column + BLOCK_COLUMNS // 2, BACKWARD)
        else:
            _finish(total, post, out, shift, row, column, BACKWARD)


@_jit
def _finish(total, post, out, shift, row, column, BACKWARD: tl.constexpr):
    """Apply the activation, or its slope, to a finished tile and store it."""
    if BACKWARD:
        result = 2 * total * tl.sqrt(post.load([row, column]).to(tl.float32))
    else:
        kept = tl.maximum(total - shift, 0.0, propagate_nan=tl.PropagateNan.ALL)
        result = kept * kept
    out.store([row, column], result.to(out.dtype))


INTERPRETED = triton is not None and not isinstance(_tile_kernel, triton.JITFunction)
# TRITON_INTERPRET=1 plays the kernels on a CPU.
_DEVICES = () if triton is None else ("cuda", "cpu") if INTERPRETED else ("cuda",)
# The interpreter multiplies the bit patterns of bfloat16, so there that type takes the naive way.
_TYPES = (torch.float32, torch.float16) if INTERPRETED else (torch.bfloat16, torch.float16)


def _fast(x: Tensor, weight: Tensor) -> bool:
    """Whether the kernel takes these: tiles are copied in units of 16 bytes, and float32 belongs to cuBLAS."""
    aligned = all(size * x.element_size() % 16 == 0 for size in weight.shape)
    return x.device.type in _DEVICES and x.dtype in _TYPES and aligned and x.numel() > 0


def _programs(device: torch.device) -> int:
    return 3 if INTERPRETED else torch.cuda.get_device_properties(device).multi_processor_count


def _descriptor(tensor: Tensor, block: list[int]) -> TensorDescriptor:
    """For bulk copies of blocks, which want rows side by side and a start at a multiple of 16 bytes."""
    tensor = tensor.contiguous()
    return TensorDescriptor.from_tensor(tensor.clone() if tensor.data_ptr() % 16 else tensor, block)


def _launch(left: Tensor, right: Tensor, post: Tensor | None, shift: float, tile: Tile) -> Tensor:
    """left [N, K]; forward right [F, K], backward right [K, F] and post [N, F] -> [N, F]."""
    backward = post is not None
    rows, inner = left.shape
    columns = right.size(1 if backward else 0)
    out = left.new_empty(rows, columns)
    leaving = [tile.rows, tile.columns // 2 if tile.halves else tile.columns]
    coming = [tile.inner, tile.columns] if backward else [tile.columns, tile.inner]
    result = _descriptor(out, leaving)
    tiles = triton.cdiv(rows, tile.rows) * triton.cdiv(columns, tile.columns)
    _tile_kernel[(min(tiles, tile.programs * _programs(left.device)),)](
        _descriptor(left, [tile.rows, tile.inner]), _descriptor(right, coming),
        result if post is None else _descriptor(post, leaving), result, shift, rows, columns, inner,
        BACKWARD=backward, HALVES=tile.halves, BLOCK_ROWS=tile.rows, BLOCK_COLUMNS=tile.columns,
        BLOCK_INNER=tile.inner, num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return out


@torch.library.custom_op(f"{_LIBRARY}::linear_relu_squared", mutates_args=())
def _linear(x: Tensor, weight: Tensor, shift: float) -> Tensor:
    """relu(x @ weight.T - shift)^2: x [N, C], weight [F, C] -> [N, F]."""
    return _launch(x, weight, None, shift, FORWARD_TILE)


@_linear.register_fake
def _(x, weight, shift):
    return x.new_empty(x.size(0), weight.size(0))


@torch.library.custom_op(f"{_LIBRARY}::gradient_of_linear", mutates_args=())
def _gradient_of_linear(of_output: Tensor, weight_out: Tensor, post: Tensor) -> Tensor:
    """2 sqrt(post) * (of_output @ weight_out): of_output [N, C], weight_out [C, F], post [N, F] -> [N, F]."""
    return _launch(of_output, weight_out, post, 0.0, BACKWARD_TILE)


@_gradient_of_linear.register_fake
def _(of_output, weight_out, post):
    return torch.empty_like(post, memory_format=torch.contiguous_format)


def _keep(ctx, inputs, output):
    x, weight, _ = inputs
    ctx.save_for_backward(x, weight, output)


def _linear_backward(ctx, of_post):
    x, weight, post = ctx.saved_tensors
    of_linear = 2 * of_post * post.sqrt()
    return of_linear @ weight, of_linear.T @ x, None


_linear.register_autograd(_linear_backward, setup_context=_keep)


@torch.library.custom_op(f"{_LIBRARY}::relu_squared_mlp", mutates_args=())
def _mlp(x: Tensor, weight_in: Tensor, weight_out: Tensor, shift: float) -> tuple[Tensor, Tensor]:
    """What both layers give, [N, C], and what the first does, [N, F]."""
    post = _launch(x, weight_in, None, shift, FORWARD_TILE)
    return post @ weight_out.T, post


@_mlp.register_fake
def _(x, weight_in, weight_out, shift):
    return x.new_empty(x.size(0), weight_out.size(0)), x.new_empty(x.size(0), weight_in.size(0))


def _keep_mlp(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:3], output[1])
    ctx.mark_non_differentiable(output[1])


def _mlp_backward(ctx, of_output, _):
    x, weight_in, weight_out, post = ctx.saved_tensors
    of_linear = _gradient_of_linear(of_output, weight_out, post)
    return of_linear @ weight_in, of_linear.T @ x, of_output.T @ post, None


# Not an autograd.Function: in torch 2.13 a graph with one is not kept by the compile cache, one of operators is.
_mlp.register_autograd(_mlp_backward, setup_context=_keep_mlp)
