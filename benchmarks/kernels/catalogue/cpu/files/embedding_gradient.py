"""The gradient of an embedding table in C++: tokens sorted by counting, each row summed in the first cache, once."""

import torch
from harness import compile_cpp

FLAGS = (
    "-O3", "-march=native", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-ffinite-math-only",
    "-fno-signed-zeros",
)  # fmt: skip
SOURCE = r"""
#include "numbers.h"

// 0, or 1 where an id is no row of the table.
extern "C" long embedding_gradient(
    const bf16 *grad_output, const int64_t *ids, bf16 *grad_table, long tokens, long vocabulary, long width) {
    std::vector<long> starts(vocabulary + 1, 0), order(tokens);
    for (long token = 0; token < tokens; token++) {
        if (ids[token] < 0 || ids[token] >= vocabulary) return 1;
        starts[ids[token] + 1]++;
    }
    for (long id = 0; id < vocabulary; id++) starts[id + 1] += starts[id];
    std::vector<long> next(starts.begin(), starts.end() - 1);
    for (long token = 0; token < tokens; token++) order[next[ids[token]]++] = token;
    std::vector<float> sums(width);
    float *sum = sums.data();
    for (long id = 0; id < vocabulary; id++, grad_table += width) {
        if (starts[id] == starts[id + 1]) { std::memset(grad_table, 0, width * sizeof(bf16)); continue; }
        std::fill(sums.begin(), sums.end(), 0.0f);
        for (long visit = starts[id]; visit < starts[id + 1]; visit++) {
            const bf16 *row = grad_output + order[visit] * width;
            #pragma omp simd
            for (long i = 0; i < width; i++) sum[i] += wide(row[i]);
        }
        #pragma omp simd
        for (long i = 0; i < width; i++) grad_table[i] = narrow(sum[i]);
    }
    return 0;
}
"""
KERNEL = compile_cpp(SOURCE, FLAGS).embedding_gradient


def run(grad_output, ids, table_rows):
    """grad_output (tokens, width), bfloat16, ids (tokens,), int64, to the gradient (table_rows, width)."""
    grad_output, ids = grad_output.contiguous(), ids.contiguous()
    tokens, width = grad_output.shape
    grad_table = torch.empty((table_rows, width), dtype=grad_output.dtype)
    if KERNEL(grad_output, ids, grad_table, tokens, table_rows, width):
        raise IndexError("an id is no row of the table")
    return grad_table
