"""A block-scaled matmul of e4m3 in C++: rows are widened and scaled once, weights some columns at a time."""

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

enum { BLOCK = 128 };

static void widen_e4m3(const uint8_t *from, float *to, float scale, long size) {
    #pragma omp simd
    for (long i = 0; i < size; i++) {
        uint32_t byte = from[i], bits = (byte & 0x80) << 24 | (byte & 0x7f) << 20;
        float value = from_bits(bits) * 0x1p120f;  // the exponents are 120 apart
        to[i] = ((byte & 0x7f) == 0x7f ? from_bits(0x7fc00000) : value) * scale;
    }
}

extern "C" void fp8_block_gemm(
    const uint8_t *x, const float *x_scale, const uint8_t *weight, const float *weight_scale, bf16 *y,
    long rows, long inner, long columns) {
    const long blocks = inner / BLOCK;
    std::vector<float> a(rows * inner), panel(COLUMNS * inner), out(rows * COLUMNS);
    for (long at = 0; at < rows * blocks; at++) widen_e4m3(x + at * BLOCK, &a[at * BLOCK], x_scale[at], BLOCK);
    for (long column = 0; column < columns; column += COLUMNS) {
        long there = std::min<long>(COLUMNS, columns - column);
        for (long at = 0; at < there * blocks; at++) {
            float scale = weight_scale[(column + at / blocks) / BLOCK * blocks + at % blocks];
            widen_e4m3(weight + column * inner + at * BLOCK, &panel[at * BLOCK], scale, BLOCK);
        }
        columns_of(a.data(), panel.data(), out.data(), rows, inner);
        for (long row = 0; row < rows; row++)
            for (long n = 0; n < there; n++) y[row * columns + column + n] = narrow(out[row * COLUMNS + n]);
    }
}
"""
KERNEL = compile_cpp(SOURCE, (*FLAGS, *TILE)).fp8_block_gemm


def run(x, x_scale, weight, weight_scale):
    """x (rows, inner), weight (columns, inner), e4m3, with a scale for 128 or 128 by 128, to y, bfloat16."""
    x, x_scale, weight, weight_scale = (each.contiguous() for each in (x, x_scale, weight, weight_scale))
    (rows, inner), columns = x.shape, weight.shape[0]
    y = torch.empty((rows, columns), dtype=torch.bfloat16)
    KERNEL(x, x_scale, weight, weight_scale, y, rows, inner, columns)
    return y
