"""A block-scaled matmul of e4m3 in one launch, on the fp8 tensor cores: nothing is dequantised in memory.

Bytes: x and weight 1 each, y 2, scales a hundredth of that; a dequantised weight alone would be 4 written and read. The
scales are constant over 128 inner elements, so each such step is one product of raw e4m3 whose sum is scaled and
added in float32 by the ordinary cores: the promotion that also keeps the sum exact, as the tensor cores add fp8
products with fewer digits than float32 (DeepSeek-AI 2024, "DeepSeek-V3", section 3.3.2; DeepGEMM). Tiles come by bulk
copies (TMA); tiles that share weights run side by side, so these come from L2.
"""

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

BLOCK = 128  # of the scales: columns and inner elements of a tile
TILES = ((128, 8, 4), (64, 4, 5))  # rows, warps, stages; the first that gives every multiprocessor one, or the last
GROUP = 8  # rows of tiles that go through the columns together


@triton.jit
def fp8_block_gemm(
    x, x_scale, weight, weight_scale, y, rows, columns, inner,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    row_tiles, column_tiles, steps = tl.cdiv(rows, ROWS), columns // BLOCK, inner // BLOCK
    first = tl.program_id(0) // (GROUP * column_tiles) * GROUP
    height = tl.minimum(row_tiles - first, GROUP)
    within = tl.program_id(0) % (GROUP * column_tiles)
    row, column_tile = (first + within % height) * ROWS, within // height
    at = row + tl.arange(0, ROWS)
    of_rows = x_scale + at * steps
    of_columns = weight_scale + column_tile * steps
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for step in range(steps):
        raw = tl.dot(x.load([row, step * BLOCK]), weight.load([column_tile * BLOCK, step * BLOCK]).T)
        scale = tl.load(of_rows + step, mask=at < rows, other=0.0) * tl.load(of_columns + step)
        total += raw * scale[:, None]
    y.store([row, column_tile * BLOCK], total.to(tl.bfloat16))


def multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


def run(x: torch.Tensor, x_scale: torch.Tensor, weight: torch.Tensor, weight_scale: torch.Tensor) -> torch.Tensor:
    """x (rows, inner) and weight (columns, inner), e4m3, to y (rows, columns), bfloat16.

    Scales are float32: (rows, inner / 128) and (columns / 128, inner / 128), which must be whole.
    """
    x, x_scale, weight, weight_scale = (each.contiguous() for each in (x, x_scale, weight, weight_scale))
    (rows, inner), columns = x.shape, weight.shape[0]
    y = torch.empty((rows, columns), dtype=torch.bfloat16, device=x.device)
    programs, column_tiles = multiprocessors(x.device), columns // BLOCK
    enough = (tile for tile in TILES if triton.cdiv(rows, tile[0]) * column_tiles >= programs)
    high, warps, stages = next(enough, TILES[-1])
    fp8_block_gemm[(triton.cdiv(rows, high) * column_tiles,)](
        TensorDescriptor.from_tensor(x, [high, BLOCK]), x_scale, TensorDescriptor.from_tensor(weight, [BLOCK, BLOCK]),
        weight_scale, TensorDescriptor.from_tensor(y, [high, BLOCK]), rows, columns, inner,
        ROWS=high, BLOCK=BLOCK, GROUP=GROUP, num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return y
