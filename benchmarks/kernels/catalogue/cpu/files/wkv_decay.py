"""WKV in C++: one loop over time, whose state of three numbers a channel stays in the first cache."""

import torch
from harness import compile_cpp

FLAGS = (
    "-O3", "-march=native", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-ffinite-math-only",
    "-fno-signed-zeros",
)  # fmt: skip
SOURCE = r"""
#include "numbers.h"

extern "C" void wkv_decay(
    const float *k, const float *v, const float *log_rate, const float *bonus, float *wkv,
    long batch, long length, long channels) {
    std::vector<float> rates(channels), states(3 * channels);
    float *rate = rates.data(), *top = states.data(), *bottom = top + channels, *peak = bottom + channels;
    for (long c = 0; c < channels; c++) rate[c] = std::exp(log_rate[c]);
    for (long sequence = 0; sequence < batch; sequence++) {
        std::fill(top, peak, 0.0f);
        std::fill(peak, peak + channels, -1e30f);
        for (long time = 0; time < length; time++, k += channels, v += channels, wkv += channels) {
            #pragma omp simd
            for (long c = 0; c < channels; c++) {
                float lifted = k[c] + bonus[c];
                float highest = peak[c] > lifted ? peak[c] : lifted;
                float past = exp_(peak[c] - highest), now = exp_(lifted - highest);
                wkv[c] = (past * top[c] + now * v[c]) / (past * bottom[c] + now);
                float faded = peak[c] - rate[c];
                highest = faded > k[c] ? faded : k[c];
                past = exp_(faded - highest);
                now = exp_(k[c] - highest);
                top[c] = past * top[c] + now * v[c];
                bottom[c] = past * bottom[c] + now;
                peak[c] = highest;
            }
        }
    }
}
"""
KERNEL = compile_cpp(SOURCE, FLAGS).wkv_decay


def run(k, v, log_rate, bonus):
    """k and v (batch, length, channels), log_rate and bonus (channels,), float32, to wkv of the shape of k."""
    k, v, log_rate, bonus = (each.contiguous() for each in (k, v, log_rate, bonus))
    wkv = torch.empty_like(k)
    KERNEL(k, v, log_rate, bonus, wkv, *k.shape)
    return wkv
