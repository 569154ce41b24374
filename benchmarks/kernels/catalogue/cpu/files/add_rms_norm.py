"""Residual addition and RMS norm in C++: two reads and two writes, the sum stays in the first cache."""

import torch
from harness import compile_cpp

FLAGS = (
    "-O3", "-march=native", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-ffinite-math-only",
    "-fno-signed-zeros",
)  # fmt: skip
SOURCE = r"""
#include "numbers.h"

extern "C" void add_rms_norm(
    const bf16 *x, const bf16 *residual, const bf16 *gain, bf16 *y, bf16 *total, long rows, long width) {
    std::vector<float> factors(width), values(width);
    float *factor = factors.data(), *value = values.data();
    for (long i = 0; i < width; i++) factor[i] = wide(gain[i]);
    for (long row = 0; row < rows; row++, x += width, residual += width, y += width, total += width) {
        float sum = 0;
        #pragma omp simd reduction(+ : sum)
        for (long i = 0; i < width; i++) {
            bf16 rounded = narrow(wide(x[i]) + wide(residual[i]));  // squared as it is given out
            total[i] = rounded;
            value[i] = wide(rounded);
            sum += value[i] * value[i];
        }
        float scale = 1.0f / std::sqrt(sum / width + 1e-6f);
        #pragma omp simd
        for (long i = 0; i < width; i++) y[i] = narrow(value[i] * scale * factor[i]);
    }
}
"""
KERNEL = compile_cpp(SOURCE, FLAGS).add_rms_norm


def run(x, residual, gain):
    """x and residual (rows, width), gain (width,), bfloat16, to y and total (rows, width)."""
    x, residual, gain = x.contiguous(), residual.contiguous(), gain.contiguous()
    y, total = torch.empty_like(x), torch.empty_like(x)
    KERNEL(x, residual, gain, y, total, *x.shape)
    return y, total
