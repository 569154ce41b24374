"""A matmul of few rows, split over the inner axis: enough programs to keep the whole memory system reading.

Bytes: the weight, 2 an element, read once; everything else is small. One program a tile of columns would leave most
multiprocessors idle, so several share a tile, each with a part of the inner axis (split-K, as in CUTLASS). Their
float32 sums are added in a fixed order by a second kernel: every run gives the same digits, which atomic additions
would not. Where one part is enough the first kernel writes the result itself.
"""

import torch
import triton
import triton.language as tl

COLUMNS, INNER = 64, 128
PROGRAMS = 528  # wanted: 4 on each of 132 multiprocessors
LEAST = 512  # inner elements of a part
MOST_PARTS = 32
SUMMED = 1024  # elements a program of the second kernel adds up


@triton.jit
def partial_gemm(
    x, weight, out, rows, columns, inner, part,
    WHOLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    row = tl.arange(0, ROWS)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    begin = tl.program_id(1) * part
    end = tl.minimum(begin + part, inner)
    of_rows = x + row[:, None] * inner
    of_columns = weight + column.to(tl.int64)[None, :] * inner
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(begin, end, INNER):
        at = start + tl.arange(0, INNER)
        left = tl.load(of_rows + at[None, :], mask=(row < rows)[:, None] & (at < end)[None, :], other=0.0)
        right = tl.load(of_columns + at[:, None], mask=(column < columns)[None, :] & (at < end)[:, None], other=0.0)
        total = tl.dot(left, right, total)
    place = (tl.program_id(1) * rows + row)[:, None] * columns + column[None, :]
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    tl.store(out + place, total.to(tl.bfloat16) if WHOLE else total, mask=inside)


@triton.jit
def sum_parts(parts, y, size, count, SUMMED: tl.constexpr):
    at = tl.program_id(0) * SUMMED + tl.arange(0, SUMMED)
    total = tl.zeros((SUMMED,), tl.float32)
    for each in range(count):
        total += tl.load(parts + each * size + at, mask=at < size, other=0.0)
    tl.store(y + at, total.to(tl.bfloat16), mask=at < size)


def run(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x (rows, inner), at most 64 rows, and weight (columns, inner), bfloat16, to y (rows, columns)."""
    x, weight = x.contiguous(), weight.contiguous()
    (rows, inner), columns = x.shape, weight.shape[0]
    y = torch.empty((rows, columns), dtype=x.dtype, device=x.device)
    tiles = triton.cdiv(columns, COLUMNS)
    wanted = max(1, min(MOST_PARTS, triton.cdiv(PROGRAMS, tiles), inner // LEAST))
    part = triton.cdiv(triton.cdiv(inner, wanted), INNER) * INNER
    count = triton.cdiv(inner, part)
    out = y if count == 1 else torch.empty((count, rows, columns), dtype=torch.float32, device=x.device)
    partial_gemm[(tiles, count)](
        x, weight, out, rows, columns, inner, part,
        WHOLE=count == 1, ROWS=max(16, triton.next_power_of_2(rows)), COLUMNS=COLUMNS, INNER=INNER,
        num_warps=4, num_stages=4,
    )  # fmt: skip
    if count > 1:
        sum_parts[(triton.cdiv(y.numel(), SUMMED),)](out, y, y.numel(), count, SUMMED=SUMMED)
    return y
