"""A matmul in C++ that widens some columns of weights at a time and multiplies all rows with them in float32."""

import torch
from harness import compile_cpp

ROWS = 2  # of a tile of sums that are kept in registers
COLUMNS = 4
FLAGS = (
    "-O3", "-march=native", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-ffinite-math-only",
    "-fno-signed-zeros",
)  # fmt: skip
TILE = (f"-DROWS={ROWS}", f"-DCOLUMNS={COLUMNS}")
SOURCE = r"""
#include "numbers.h"
#include "gemm.h"

extern "C" void skinny_gemm(const bf16 *x, const bf16 *weight, bf16 *y, long rows, long inner, long columns) {
    std::vector<float> a(rows * inner), panel(COLUMNS * inner), out(std::max(rows * COLUMNS, columns));
    widen(x, a.data(), rows * inner);
    if (rows == 1) {
        row_times(a.data(), weight, out.data(), inner, columns);
        for (long column = 0; column < columns; column++) y[column] = narrow(out[column]);
        return;
    }
    for (long column = 0; column < columns; column += COLUMNS) {
        load_panel(weight, panel.data(), column, columns, inner);
        columns_of(a.data(), panel.data(), out.data(), rows, inner);
        long there = std::min<long>(COLUMNS, columns - column);
        for (long row = 0; row < rows; row++)
            for (long n = 0; n < there; n++) y[row * columns + column + n] = narrow(out[row * COLUMNS + n]);
    }
}
"""
KERNEL = compile_cpp(SOURCE, (*FLAGS, *TILE)).skinny_gemm


def run(x, weight):
    """x (rows, inner), weight (columns, inner), bfloat16, to y (rows, columns)."""
    x, weight = x.contiguous(), weight.contiguous()
    (rows, inner), columns = x.shape, weight.shape[0]
    y = torch.empty((rows, columns), dtype=x.dtype)
    KERNEL(x, weight, y, rows, inner, columns)
    return y
