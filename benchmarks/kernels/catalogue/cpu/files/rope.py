"""Rotary embedding in C++: each pair is read once and written once, angles serve all heads of their position."""

import torch
from harness import compile_cpp

FLAGS = (
    "-O3", "-march=native", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-ffinite-math-only",
    "-fno-signed-zeros",
)  # fmt: skip
SOURCE = r"""
#include "numbers.h"

static void turn(const bf16 *x, bf16 *y, const float *cosine, const float *sine, long heads, long half) {
    for (long head = 0; head < heads; head++, x += 2 * half, y += 2 * half) {
        #pragma omp simd
        for (long i = 0; i < half; i++) {
            float first = wide(x[i]), second = wide(x[half + i]);
            y[i] = narrow(first * cosine[i] - second * sine[i]);
            y[half + i] = narrow(second * cosine[i] + first * sine[i]);
        }
    }
}

extern "C" void rope(
    const bf16 *q, const bf16 *k, const float *cosine, const float *sine, bf16 *turned_q, bf16 *turned_k,
    long batch, long length, long heads, long kv_heads, long half) {
    for (long at = 0; at < batch * length; at++) {
        const float *c = cosine + at % length * half, *s = sine + at % length * half;
        long of_q = at * heads * 2 * half, of_k = at * kv_heads * 2 * half;
        turn(q + of_q, turned_q + of_q, c, s, heads, half);
        turn(k + of_k, turned_k + of_k, c, s, kv_heads, half);
    }
}
"""
KERNEL = compile_cpp(SOURCE, FLAGS).rope


def run(q, k, cos, sin):
    """q (batch, length, heads, width), k (..., kv_heads, width), bfloat16, cos and sin (length, width / 2), float32."""
    q, k, cos, sin = q.contiguous(), k.contiguous(), cos.contiguous(), sin.contiguous()
    turned_q, turned_k = torch.empty_like(q), torch.empty_like(k)
    batch, length, heads, width = q.shape
    KERNEL(q, k, cos, sin, turned_q, turned_k, batch, length, heads, k.shape[2], width // 2)
    return turned_q, turned_k
