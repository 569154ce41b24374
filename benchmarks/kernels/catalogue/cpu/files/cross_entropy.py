"""Cross-entropy and its gradient in C++: three walks over a row while it is cached, one exponential an element."""

import torch
from harness import compile_cpp

FLAGS = (
    "-O3", "-march=native", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-ffinite-math-only",
    "-fno-signed-zeros",
)  # fmt: skip
SOURCE = r"""
#include "numbers.h"

// 0, or 1 where a target is not in the vocabulary.
extern "C" long cross_entropy(
    const bf16 *logits, const int64_t *targets, float *loss, bf16 *grad_logits, long tokens, long vocabulary) {
    std::vector<float> values(vocabulary);
    float *value = values.data();
    for (long token = 0; token < tokens; token++, logits += vocabulary, grad_logits += vocabulary) {
        long target = targets[token];
        if (target < 0 || target >= vocabulary) return 1;
        float peak = LOWEST, sum = 0;
        #pragma omp simd reduction(max : peak)
        for (long i = 0; i < vocabulary; i++) {
            float logit = wide(logits[i]);
            peak = logit > peak ? logit : peak;
        }
        #pragma omp simd reduction(+ : sum)
        for (long i = 0; i < vocabulary; i++) { value[i] = exp_(wide(logits[i]) - peak); sum += value[i]; }
        loss[token] = peak + std::log(sum) - wide(logits[target]);
        float scale = 1.0f / sum;
        #pragma omp simd
        for (long i = 0; i < vocabulary; i++) grad_logits[i] = narrow(value[i] * scale);
        grad_logits[target] = narrow(value[target] * scale - 1.0f);
    }
    return 0;
}
"""
KERNEL = compile_cpp(SOURCE, FLAGS).cross_entropy


def run(logits, targets):
    """logits (tokens, vocabulary), bfloat16, targets (tokens,), int64, to loss, float32, and the gradient, bfloat16."""
    logits, targets = logits.contiguous(), targets.contiguous()
    loss, grad_logits = torch.empty(len(logits), dtype=torch.float32), torch.empty_like(logits)
    if KERNEL(logits, targets, loss, grad_logits, *logits.shape):
        raise IndexError("a target is not in the vocabulary")
    return loss, grad_logits
