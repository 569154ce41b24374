"""Gate and up projection of SwiGLU in one launch: both products of a tile are made beside each other in registers.

Bytes: x and both weights read, y written, 2 each; separate kernels would write both products and read them again. A
tile of x is loaded once for the two matmuls. Tiles come by bulk copies (TMA) and are multiplied by wgmma into float32;
tiles that share weights run side by side, so these come from L2, and programs stay (Triton's tutorials 3 and 9). Small
problems take smaller tiles: half of the multiprocessors would have none otherwise.
"""

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

TILES = (  # rows, columns, warps, stages; the first that gives every multiprocessor one, or the last
    (128, 128, 8, 4),
    (64, 128, 4, 4),
    (64, 64, 4, 5),
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
def swiglu_gate_up(
    x, gate_weight, up_weight, y, rows, columns, inner,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    row_tiles, column_tiles = tl.cdiv(rows, ROWS), tl.cdiv(columns, COLUMNS)
    for tile in tl.range(tl.program_id(0), row_tiles * column_tiles, tl.num_programs(0), flatten=True):
        row_tile, column_tile = place_of(tile, row_tiles, column_tiles, GROUP)
        row, column = row_tile * ROWS, column_tile * COLUMNS
        gate, up = tl.zeros((ROWS, COLUMNS), tl.float32), tl.zeros((ROWS, COLUMNS), tl.float32)
        for start in range(0, inner, INNER):
            part = x.load([row, start])
            gate = tl.dot(part, gate_weight.load([column, start]).T, gate)
            up = tl.dot(part, up_weight.load([column, start]).T, up)
        y.store([row, column], (gate * tl.sigmoid(gate) * up).to(tl.bfloat16))


def multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


def run(x: torch.Tensor, gate_weight: torch.Tensor, up_weight: torch.Tensor) -> torch.Tensor:
    """x (rows, inner), weights (columns, inner), bfloat16, to y (rows, columns).

    inner and columns are multiples of 8: TMA moves 16 bytes at a time.
    """
    x, gate_weight, up_weight = x.contiguous(), gate_weight.contiguous(), up_weight.contiguous()
    (rows, inner), columns = x.shape, gate_weight.shape[0]
    y = torch.empty((rows, columns), dtype=x.dtype, device=x.device)
    programs = multiprocessors(x.device)
    enough = (tile for tile in TILES if triton.cdiv(rows, tile[0]) * triton.cdiv(columns, tile[1]) >= programs)
    high, wide, warps, stages = next(enough, TILES[-1])
    tiles = triton.cdiv(rows, high) * triton.cdiv(columns, wide)
    swiglu_gate_up[(min(tiles, programs),)](
        TensorDescriptor.from_tensor(x, [high, INNER]), TensorDescriptor.from_tensor(gate_weight, [wide, INNER]),
        TensorDescriptor.from_tensor(up_weight, [wide, INNER]), TensorDescriptor.from_tensor(y, [high, wide]),
        rows, columns, inner,
        ROWS=high, COLUMNS=wide, INNER=INNER, GROUP=GROUP, num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return y
