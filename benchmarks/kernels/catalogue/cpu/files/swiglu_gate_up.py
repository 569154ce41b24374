"""The projections of SwiGLU in C++: gate and value of some columns are multiplied out and joined before the next."""

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

extern "C" void swiglu_gate_up(
    const bf16 *x, const bf16 *gate_weight, const bf16 *up_weight, bf16 *y, long rows, long inner, long columns) {
    std::vector<float> a(rows * inner), panel(COLUMNS * inner);
    std::vector<float> gates(std::max(rows * COLUMNS, columns)), ups(gates.size());
    float *gate = gates.data(), *up = ups.data();
    widen(x, a.data(), rows * inner);
    if (rows == 1) {
        row_times(a.data(), gate_weight, gate, inner, columns);
        row_times(a.data(), up_weight, up, inner, columns);
        #pragma omp simd
        for (long column = 0; column < columns; column++)
            y[column] = narrow(gate[column] * sigmoid(gate[column]) * up[column]);
        return;
    }
    for (long column = 0; column < columns; column += COLUMNS) {
        load_panel(gate_weight, panel.data(), column, columns, inner);
        columns_of(a.data(), panel.data(), gate, rows, inner);
        load_panel(up_weight, panel.data(), column, columns, inner);
        columns_of(a.data(), panel.data(), up, rows, inner);
        long there = std::min<long>(COLUMNS, columns - column);
        #pragma omp simd
        for (long i = 0; i < rows * COLUMNS; i++) gate[i] *= sigmoid(gate[i]) * up[i];
        for (long row = 0; row < rows; row++)
            for (long n = 0; n < there; n++) y[row * columns + column + n] = narrow(gate[row * COLUMNS + n]);
    }
}
"""
KERNEL = compile_cpp(SOURCE, (*FLAGS, *TILE)).swiglu_gate_up


def run(x, gate_weight, up_weight):
    """x (rows, inner), both weights (columns, inner), bfloat16, to y (rows, columns)."""
    x, gate_weight, up_weight = x.contiguous(), gate_weight.contiguous(), up_weight.contiguous()
    (rows, inner), columns = x.shape, gate_weight.shape[0]
    y = torch.empty((rows, columns), dtype=x.dtype)
    KERNEL(x, gate_weight, up_weight, y, rows, inner, columns)
    return y
