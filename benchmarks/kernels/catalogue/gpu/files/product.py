"""left @ right.T in 16 bits with float32 sums, tiles by trying: once for each width and for few, some or many rows.

Tiles that share columns run side by side, so that these come from L2 (Triton's tutorial 3). Where there are fewer of
them than the device has multiprocessors the inner axis is split, and the parts are added in a fixed order (CUTLASS,
split-K).
"""

import os

import torch
import triton
import triton.language as tl

TILES = (  # rows, columns, inner, warps, stages
    (16, 64, 128, 4, 4), (16, 128, 128, 4, 4), (32, 64, 128, 4, 4), (32, 128, 64, 4, 4), (64, 64, 64, 4, 4),
    (64, 128, 64, 4, 4), (64, 256, 64, 8, 3), (128, 64, 64, 4, 4), (128, 128, 64, 8, 4), (128, 256, 64, 8, 3),
)  # fmt: skip
CONFIGS = [
    triton.Config({"ROWS": rows, "COLUMNS": columns, "INNER": inner}, num_warps=warps, num_stages=stages)
    for rows, columns, inner, warps, stages in TILES
]
if os.environ.get("TRITON_INTERPRET"):
    CONFIGS = CONFIGS[:1]  # nothing to measure there
GROUP = 8  # rows of tiles that go through the columns together
PROGRAMS = 132  # multiprocessors of a Hopper; fewer tiles than that are split
LEAST = 512  # inner elements of a part


@triton.autotune(CONFIGS, key=["columns", "inner", "size"])
@triton.jit
def multiply(
    left, right, out, rows, columns, inner, part, size,
    GROUP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    row_tiles, column_tiles = tl.cdiv(rows, ROWS), tl.cdiv(columns, COLUMNS)
    first = tl.program_id(0) // (GROUP * column_tiles) * GROUP
    height = tl.minimum(row_tiles - first, GROUP)
    within = tl.program_id(0) % (GROUP * column_tiles)
    row = (first + within % height) * ROWS + tl.arange(0, ROWS)
    column = within // height * COLUMNS + tl.arange(0, COLUMNS)
    begin = tl.program_id(1) * part
    end = tl.minimum(begin + part, inner)
    of_rows = left + row.to(tl.int64)[:, None] * inner
    of_columns = right + column.to(tl.int64)[None, :] * inner
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(begin, end, INNER):
        at = start + tl.arange(0, INNER)
        a = tl.load(of_rows + at[None, :], mask=(row < rows)[:, None] & (at < end)[None, :], other=0.0)
        b = tl.load(of_columns + at[:, None], mask=(column < columns)[None, :] & (at < end)[:, None], other=0.0)
        total = tl.dot(a, b, total)
    place = (tl.program_id(1).to(tl.int64) * rows + row)[:, None] * columns + column[None, :]
    tl.store(out + place, total.to(out.dtype.element_ty), mask=(row < rows)[:, None] & (column < columns)[None, :])


def product(left, right):
    """left (rows, inner), right (columns, inner), float16 or bfloat16, to (rows, columns)."""
    left, right = left.contiguous(), right.contiguous()
    (rows, inner), columns = left.shape, right.shape[0]
    tiles = triton.cdiv(rows, 64) * triton.cdiv(columns, 64)
    parts = max(1, min(PROGRAMS // tiles, inner // LEAST)) if tiles else 1
    part = triton.cdiv(triton.cdiv(inner, parts), 128) * 128
    parts = triton.cdiv(inner, part)
    dtype = left.dtype if parts == 1 else torch.float32
    out = torch.empty((parts, rows, columns), dtype=dtype, device=left.device)

    def grid(constants):
        return (triton.cdiv(rows, constants["ROWS"]) * triton.cdiv(columns, constants["COLUMNS"]), parts)

    size = min(3, rows.bit_length() // 4)  # up to 7 rows, 127, 2,047, and more
    multiply[grid](left, right, out, rows, columns, inner, part, size, GROUP=GROUP)
    return out[0] if parts == 1 else out.sum(0).to(left.dtype)
