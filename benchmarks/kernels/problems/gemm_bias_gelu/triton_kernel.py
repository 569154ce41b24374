"""A linear layer with bias and GELU in one launch: what it computes is never written before it is activated.

Bytes: x, weight and bias read, y written, 2 each; two kernels would write and read the hidden values as well. Programs
stay and take tile after tile, so that the epilogue of one runs beside the loads of the next; tiles come by bulk copies
(TMA) and are multiplied by wgmma into float32. Tiles that share weights run side by side, so these come from L2
(grouped order and persistent programs: Triton's tutorials 3 and 9). Small problems take smaller tiles: half of the
multiprocessors would have none otherwise.
"""

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

TILES = (  # rows, columns, warps, stages; the first that gives every multiprocessor one, or the last
    (128, 256, 8, 3),
    (128, 128, 8, 4),
    (64, 128, 4, 4),
    (64, 64, 4, 6),
)
INNER = 64
GROUP = 8  # rows of tiles that go through the columns together


@triton.jit
def place_of(tile, row_tiles, column_tiles, GROUP: tl.constexpr):
    first = tile // (GROUP * column_tiles) * GROUP
    height = tl.minimum(row_tiles - first, GROUP)
    within = tile % (GROUP * column_tiles)
    return first + within % height, within // height


@triton.jit
def gemm_bias_gelu(
    x, weight, bias, y, rows, columns, inner,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    row_tiles, column_tiles = tl.cdiv(rows, ROWS), tl.cdiv(columns, COLUMNS)
    for tile in tl.range(tl.program_id(0), row_tiles * column_tiles, tl.num_programs(0), flatten=True):
        row_tile, column_tile = place_of(tile, row_tiles, column_tiles, GROUP)
        row, column = row_tile * ROWS, column_tile * COLUMNS
        total = tl.zeros((ROWS, COLUMNS), tl.float32)
        for start in range(0, inner, INNER):
            total = tl.dot(x.load([row, start]), weight.load([column, start]).T, total)
        at = column + tl.arange(0, COLUMNS)
        hidden = total + tl.load(bias + at, mask=at < columns, other=0.0).to(tl.float32)[None, :]
        bend = 0.7978845608028654 * (hidden + 0.044715 * hidden * hidden * hidden)  # sqrt(2 / pi)
        y.store([row, column], (hidden * tl.sigmoid(2.0 * bend)).to(tl.bfloat16))


def multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


def run(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """x (rows, inner), weight (columns, inner), bias (columns,), bfloat16, to y (rows, columns).

    inner and columns are multiples of 8: TMA moves 16 bytes at a time.
    """
    x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
    (rows, inner), columns = x.shape, weight.shape[0]
    y = torch.empty((rows, columns), dtype=x.dtype, device=x.device)
    programs = multiprocessors(x.device)
    enough = (tile for tile in TILES if triton.cdiv(rows, tile[0]) * triton.cdiv(columns, tile[1]) >= programs)
    high, wide, warps, stages = next(enough, TILES[-1])
    tiles = triton.cdiv(rows, high) * triton.cdiv(columns, wide)
    gemm_bias_gelu[(min(tiles, programs),)](
        TensorDescriptor.from_tensor(x, [high, INNER]), TensorDescriptor.from_tensor(weight, [wide, INNER]),
        bias, TensorDescriptor.from_tensor(y, [high, wide]), rows, columns, inner,
        ROWS=high, COLUMNS=wide, INNER=INNER, GROUP=GROUP, num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return y
