"""Both gradients of an RMS norm in C++, in one pass over the rows; that of the gain stays in the first cache."""

import torch
from harness import compile_cpp

FLAGS = (
    "-O3", "-march=native", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-ffinite-math-only",
    "-fno-signed-zeros",
)  # fmt: skip
SOURCE = r"""
#include "numbers.h"

extern "C" void rms_norm_backward(
    const bf16 *grad_output, const bf16 *x, const bf16 *gain, bf16 *grad_x, float *grad_gain, long rows, long width) {
    std::vector<float> factors(width), values(width), grads(width);
    float *factor = factors.data(), *value = values.data(), *grad = grads.data();
    for (long i = 0; i < width; i++) factor[i] = wide(gain[i]);
    std::fill(grad_gain, grad_gain + width, 0.0f);
    for (long row = 0; row < rows; row++, grad_output += width, x += width, grad_x += width) {
        float squares = 0, products = 0;
        #pragma omp simd reduction(+ : squares, products)
        for (long i = 0; i < width; i++) {
            value[i] = wide(x[i]);
            grad[i] = wide(grad_output[i]);
            squares += value[i] * value[i];
            products += value[i] * grad[i] * factor[i];
        }
        float scale = 1.0f / std::sqrt(squares / width + 1e-6f), back = products * scale * scale / width;
        #pragma omp simd
        for (long i = 0; i < width; i++) {
            grad_gain[i] += grad[i] * value[i] * scale;
            grad_x[i] = narrow((grad[i] * factor[i] - value[i] * back) * scale);
        }
    }
}
"""
KERNEL = compile_cpp(SOURCE, FLAGS).rms_norm_backward


def run(grad_output, x, gain):
    """grad_output and x (rows, width), gain (width,), bfloat16, to grad_x and grad_gain (width,), float32."""
    grad_output, x, gain = grad_output.contiguous(), x.contiguous(), gain.contiguous()
    grad_x, grad_gain = torch.empty_like(x), torch.empty(x.shape[1], dtype=torch.float32)
    KERNEL(grad_output, x, gain, grad_x, grad_gain, *x.shape)
    return grad_x, grad_gain
