"""Attention of one query a sequence in C++: keys and values are widened once for all query heads that share them."""

import torch
from harness import compile_cpp

ROWS = 2  # query heads of a tile of scores that is kept in registers
CHUNK = 64  # keys or values that are widened at a time, a multiple of 4
FLAGS = (
    "-O3", "-march=native", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-ffinite-math-only",
    "-fno-signed-zeros",
)  # fmt: skip
TILE = (f"-DROWS={ROWS}", "-DCOLUMNS=4", f"-DCHUNK={CHUNK}")
SOURCE = r"""
#include "numbers.h"
#include "gemm.h"
#include "weigh.h"
#include "attention.h"

extern "C" void gqa_decode(
    const bf16 *q, const bf16 *k, const bf16 *v, bf16 *out, float *lse,
    long batch, long length, long kv_heads, long group, long width) {
    const long padded = (length + 3) / 4 * 4, stride = kv_heads * width;
    const float scale = 1.0f / std::sqrt(float(width));
    std::vector<float> query(group * width), score(group * padded), chunk(CHUNK * width), mean(group * width);
    std::vector<float> sum(group);
    for (long sequence = 0; sequence < batch; sequence++)
        for (long head = 0; head < kv_heads; head++) {
            long first = (sequence * kv_heads + head) * group, cache = (sequence * length * kv_heads + head) * width;
            for (long i = 0; i < group * width; i++) query[i] = wide(q[first * width + i]) * scale;
            for (long at = 0; at < length; at += CHUNK) {
                long there = std::min<long>(CHUNK, length - at), keys = (there + 3) / 4 * 4;
                load_head(k + cache + at * stride, chunk.data(), there, keys, width, stride);
                scores_of(query.data(), chunk.data(), &score[at], group, keys, width, padded);
            }
            for (long g = 0; g < group; g++) lse[first + g] = weigh(&score[g * padded], length, padded, sum[g]);
            std::fill(mean.begin(), mean.end(), 0.0f);
            for (long at = 0; at < length; at += CHUNK) {
                long there = std::min<long>(CHUNK, length - at), keys = (there + 3) / 4 * 4;
                load_head(v + cache + at * stride, chunk.data(), there, keys, width, stride);
                add_values(&score[at], chunk.data(), mean.data(), group, keys, width, padded);
            }
            for (long i = 0; i < group * width; i++) out[first * width + i] = narrow(mean[i] / sum[i / width]);
        }
}
"""
KERNEL = compile_cpp(SOURCE, (*FLAGS, *TILE)).gqa_decode


def run(q, k, v):
    """q (batch, heads, width), k and v (batch, length, kv_heads, width), bfloat16, to out and lse (batch, heads)."""
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    batch, length, kv_heads, width = k.shape
    heads = q.shape[1]
    out, lse = torch.empty_like(q), torch.empty((batch, heads), dtype=torch.float32)
    KERNEL(q, k, v, out, lse, batch, length, kv_heads, heads // kv_heads, width)
    return out, lse
