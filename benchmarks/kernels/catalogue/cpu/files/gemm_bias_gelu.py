"""A linear layer with bias and GELU in C++: products in float32 are activated before they are written."""

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

extern "C" void gemm_bias_gelu(
    const bf16 *x, const bf16 *weight, const bf16 *bias, bf16 *y, long rows, long inner, long columns) {
    std::vector<float> a(rows * inner), panel(COLUMNS * inner), out(std::max(rows * COLUMNS, columns));
    widen(x, a.data(), rows * inner);
    if (rows == 1) {
        float *hidden = out.data();
        row_times(a.data(), weight, hidden, inner, columns);
        #pragma omp simd
        for (long column = 0; column < columns; column++)
            y[column] = narrow(gelu_tanh(hidden[column] + wide(bias[column])));
        return;
    }
    for (long column = 0; column < columns; column += COLUMNS) {
        load_panel(weight, panel.data(), column, columns, inner);
        columns_of(a.data(), panel.data(), out.data(), rows, inner);
        long there = std::min<long>(COLUMNS, columns - column);
        float added[COLUMNS] = {}, *hidden = out.data();
        for (long n = 0; n < there; n++) added[n] = wide(bias[column + n]);
        #pragma omp simd
        for (long i = 0; i < rows * COLUMNS; i++) hidden[i] = gelu_tanh(hidden[i] + added[i % COLUMNS]);
        for (long row = 0; row < rows; row++)
            for (long n = 0; n < there; n++) y[row * columns + column + n] = narrow(hidden[row * COLUMNS + n]);
    }
}
"""
KERNEL = compile_cpp(SOURCE, (*FLAGS, *TILE)).gemm_bias_gelu


def run(x, weight, bias):
    """x (rows, inner), weight (columns, inner), bias (columns,), bfloat16, to y (rows, columns)."""
    x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
    (rows, inner), columns = x.shape, weight.shape[0]
    y = torch.empty((rows, columns), dtype=x.dtype)
    KERNEL(x, weight, bias, y, rows, inner, columns)
    return y
