"""Depthwise causal convolution in C++, channels side by side: a row is widened once and used by four steps of time."""

import torch
from harness import compile_cpp

FLAGS = (
    "-O3", "-march=native", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-ffinite-math-only",
    "-fno-signed-zeros",
)  # fmt: skip
SOURCE = r"""
#include "numbers.h"

extern "C" void causal_conv1d(
    const bf16 *x, const bf16 *weight, const bf16 *bias, bf16 *y, long batch, long length, long channels) {
    const long taps = 4;
    std::vector<float> weights(taps * channels), added(channels), window(taps * channels);
    for (long c = 0; c < channels; c++) {
        added[c] = wide(bias[c]);
        for (long tap = 0; tap < taps; tap++) weights[tap * channels + c] = wide(weight[c * taps + tap]);
    }
    const float *w0 = weights.data(), *w1 = w0 + channels, *w2 = w1 + channels, *w3 = w2 + channels;
    const float *plus = added.data();
    for (long sequence = 0; sequence < batch; sequence++) {
        std::fill(window.begin(), window.end(), 0.0f);
        for (long time = 0; time < length; time++, x += channels, y += channels) {
            float *now = window.data() + time % taps * channels;
            const float *before1 = window.data() + (time + 3) % taps * channels;
            const float *before2 = window.data() + (time + 2) % taps * channels;
            const float *before3 = window.data() + (time + 1) % taps * channels;
            #pragma omp simd
            for (long c = 0; c < channels; c++) {
                float present = wide(x[c]);
                now[c] = present;
                float mixed = plus[c] + w0[c] * before3[c] + w1[c] * before2[c] + w2[c] * before1[c] + w3[c] * present;
                y[c] = narrow(mixed * sigmoid(mixed));
            }
        }
    }
}
"""
KERNEL = compile_cpp(SOURCE, FLAGS).causal_conv1d


def run(x, weight, bias):
    """x (batch, length, channels), weight (channels, 4), bias (channels,), bfloat16, to y of the shape of x."""
    x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
    y = torch.empty_like(x)
    KERNEL(x, weight, bias, y, *x.shape)
    return y
