// Scores of `count` queries with `keys` widened keys (a multiple of COLUMNS), to score (count, stride).
static void scores_of(
    const float *query, const float *key, float *score, long count, long keys, long width, long stride) {
    for (long time = 0; time < keys; time += COLUMNS) {
        long row = 0;
        for (; row + ROWS <= count; row += ROWS)
            dots<ROWS>(query + row * width, key + time * width, width, score + row * stride + time, stride);
        for (; row < count; row++)
            dots<1>(query + row * width, key + time * width, width, score + row * stride + time, stride);
    }
}

// Adds to mean (count, width) what `keys` widened values weigh (a multiple of 4).
static void add_values(
    const float *weight, const float *value, float *mean, long count, long keys, long width, long stride) {
    for (long time = 0; time < keys; time += 4) {
        const float *v0 = value + time * width, *v1 = v0 + width, *v2 = v1 + width, *v3 = v2 + width;
        for (long row = 0; row < count; row++) {
            const float *w = weight + row * stride + time;
            float w0 = w[0], w1 = w[1], w2 = w[2], w3 = w[3], *to = mean + row * width;
            #pragma omp simd
            for (long i = 0; i < width; i++) to[i] += w0 * v0[i] + w1 * v1[i] + w2 * v2[i] + w3 * v3[i];
        }
    }
}

// One head of a cache: `there` vectors of `width`, `stride` apart, widened; then zeros up to `padded` vectors.
static void load_head(const bf16 *from, float *to, long there, long padded, long width, long stride) {
    for (long time = 0; time < there; time++) widen(from + time * stride, to + time * width, width);
    std::fill(to + there * width, to + padded * width, 0.0f);
}
