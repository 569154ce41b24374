"""Group-limited expert choice in C++: scores of a token stay in the first cache, nothing is sorted that need not be."""

import torch
from harness import compile_cpp

FLAGS = (
    "-O3", "-march=native", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-ffinite-math-only",
    "-fno-signed-zeros",
)  # fmt: skip
SOURCE = r"""
#include "numbers.h"

enum { GROUPS = 8, KEPT = 4, CHOSEN = 8 };

// Puts `value` in its place among the best so far, largest first; equal ones stay behind those before them.
static inline void keep(float *best, int *where, int size, float value, int at) {
    if (!(value > best[size - 1])) return;
    int place = size - 1;
    for (; place > 0 && value > best[place - 1]; place--) {
        best[place] = best[place - 1];
        where[place] = where[place - 1];
    }
    best[place] = value;
    where[place] = at;
}

extern "C" void moe_gating(
    const float *logits, const float *bias, float *weights, int32_t *indices, long tokens, long size) {
    const long experts = GROUPS * size;
    std::vector<float> scores(experts), choices(experts);
    float *score = scores.data(), *choice = choices.data();
    for (long token = 0; token < tokens; token++, logits += experts, weights += CHOSEN, indices += CHOSEN) {
        #pragma omp simd
        for (long e = 0; e < experts; e++) {
            score[e] = sigmoid(logits[e]);
            choice[e] = score[e] + bias[e];
        }
        float of_group[KEPT];
        int group[KEPT];
        std::fill(of_group, of_group + KEPT, LOWEST);
        for (int g = 0; g < GROUPS; g++) {
            float first = LOWEST, second = LOWEST;
            for (long e = g * size; e < (g + 1) * size; e++) {
                float lower = choice[e] < first ? choice[e] : first;
                first = choice[e] > first ? choice[e] : first;
                second = lower > second ? lower : second;
            }
            keep(of_group, group, KEPT, first + second, g);
        }
        std::sort(group, group + KEPT);
        float best[CHOSEN];
        int where[CHOSEN];
        std::fill(best, best + CHOSEN, LOWEST);
        for (int g = 0; g < KEPT; g++)
            for (long e = group[g] * size; e < (group[g] + 1) * size; e++) keep(best, where, CHOSEN, choice[e], int(e));
        float sum = 0;
        for (int at = 0; at < CHOSEN; at++) sum += score[where[at]];
        for (int at = 0; at < CHOSEN; at++) {
            weights[at] = 2.5f * score[where[at]] / sum;
            indices[at] = where[at];
        }
    }
}
"""
KERNEL = compile_cpp(SOURCE, FLAGS).moe_gating


def run(logits, bias):
    """logits (tokens, 8 size), bias (8 size,), float32, to weights, float32, and indices, int32, (tokens, 8)."""
    logits, bias = logits.contiguous(), bias.contiguous()
    tokens, experts = logits.shape
    weights = torch.empty((tokens, 8), dtype=torch.float32)
    indices = torch.empty((tokens, 8), dtype=torch.int32)
    KERNEL(logits, bias, weights, indices, tokens, experts // 8)
    return weights, indices
