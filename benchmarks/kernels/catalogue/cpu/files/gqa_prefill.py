"""Causal attention in C++, float32 inside: a cache head is widened once, some queries at a time see what is before."""

import torch
from harness import compile_cpp

ROWS = 4  # queries whose scores with 16 keys are kept in registers
QUERIES = 16  # that go through the keys together
FLAGS = (
    "-O3", "-march=native", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-ffinite-math-only",
    "-fno-signed-zeros",
)  # fmt: skip
TILE = (f"-DROWS={ROWS}", f"-DQUERIES={QUERIES}")
SOURCE = r"""
#include "numbers.h"
#include "panels.h"
#include "weigh.h"

struct Head {  // what is widened of one cache head: keys (width, keys), the other way round, and values (keys, wide_)
    std::vector<float> keys, values;
    long length, width, padded, wide_;

    Head(long length, long width)
        : keys(width * whole(length)), values(whole(length) * whole(width)), length(length), width(width),
          padded(whole(length)), wide_(whole(width)) {}

    void load(const bf16 *k, const bf16 *v, long stride) {
        for (long time = 0; time < length; time++)
            for (long i = 0; i < width; i++) {
                keys[i * padded + time] = wide(k[time * stride + i]);
                values[time * wide_ + i] = wide(v[time * stride + i]);
            }
    }
};

extern "C" void gqa_prefill(
    const bf16 *q, const bf16 *k, const bf16 *v, bf16 *out,
    long batch, long length, long kv_heads, long group, long width) {
    const long of_cache = kv_heads * width, of_queries = group * of_cache;
    const float scale = 1.0f / std::sqrt(float(width));
    Head head(length, width);
    std::vector<float> query(QUERIES * width), score(QUERIES * head.padded), mean(QUERIES * head.wide_);
    float sum[QUERIES];
    for (long at = 0; at < batch * kv_heads * group; at++) {
        long sequence = at / (kv_heads * group), cache = at / group % kv_heads;
        long base = sequence * length * of_cache + cache * width;
        if (at % group == 0) head.load(k + base, v + base, of_cache);
        for (long first = 0; first < length; first += QUERIES) {
            long count = std::min<long>(QUERIES, length - first), keys = first + count;
            long place = (sequence * length + first) * of_queries + at % (kv_heads * group) * width;
            for (long row = 0; row < count; row++)
                for (long i = 0; i < width; i++) query[row * width + i] = wide(q[place + row * of_queries + i]) * scale;
            product(query.data(), width, head.keys.data(), head.padded, score.data(), head.padded, count, width,
                    whole(keys));
            for (long row = 0; row < count; row++) weigh(&score[row * head.padded], first + row + 1, keys, sum[row]);
            product(score.data(), head.padded, head.values.data(), head.wide_, mean.data(), head.wide_, count, keys,
                    head.wide_);
            for (long row = 0; row < count; row++)
                for (long i = 0; i < width; i++)
                    out[place + row * of_queries + i] = narrow(mean[row * head.wide_ + i] / sum[row]);
        }
    }
}
"""
KERNEL = compile_cpp(SOURCE, (*FLAGS, *TILE)).gqa_prefill


def run(q, k, v):
    """q (batch, length, heads, width), k and v (batch, length, kv_heads, width), bfloat16, to out of the shape of q."""
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    batch, length, kv_heads, width = k.shape
    out = torch.empty_like(q)
    KERNEL(q, k, v, out, batch, length, kv_heads, q.shape[2] // kv_heads, width)
    return out
