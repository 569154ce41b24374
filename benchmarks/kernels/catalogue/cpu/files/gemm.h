// Dot products of M rows of `a` with COLUMNS rows of `b`: the sums, of eight lanes each, stay in registers.
enum { LANES = 8 };
typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4)));

template <int M>
static inline void dots(const float *a, const float *b, long inner, float *out, long stride) {
    lanes sums[M][COLUMNS] = {};
    long k = 0;
    for (; k + LANES <= inner; k += LANES) {
        lanes right[COLUMNS];
        for (int n = 0; n < COLUMNS; n++) right[n] = *(const lanes *)(b + n * inner + k);
        for (int m = 0; m < M; m++) {
            lanes left = *(const lanes *)(a + m * inner + k);
            for (int n = 0; n < COLUMNS; n++) sums[m][n] += left * right[n];
        }
    }
    for (int m = 0; m < M; m++)
        for (int n = 0; n < COLUMNS; n++) {
            float sum = 0;
            for (int lane = 0; lane < LANES; lane++) sum += sums[m][n][lane];
            for (long rest = k; rest < inner; rest++) sum += a[m * inner + rest] * b[n * inner + rest];
            out[m * stride + n] = sum;
        }
}

// One row: reads bf16 weights as they are, for they are used once.
static inline float dot(const float *a, const bf16 *b, long inner) {
    float sum = 0;
    #pragma omp simd reduction(+ : sum)
    for (long k = 0; k < inner; k++) sum += a[k] * wide(b[k]);
    return sum;
}

// Products of all rows with those columns whose weights are in `panel`, to out (rows, COLUMNS).
static void columns_of(const float *a, const float *panel, float *out, long rows, long inner) {
    long row = 0;
    for (; row + ROWS <= rows; row += ROWS) dots<ROWS>(a + row * inner, panel, inner, out + row * COLUMNS, COLUMNS);
    for (; row < rows; row++) dots<1>(a + row * inner, panel, inner, out + row * COLUMNS, COLUMNS);
}

static void widen(const bf16 *from, float *to, long size) {
    #pragma omp simd
    for (long i = 0; i < size; i++) to[i] = wide(from[i]);
}

// Weights of the columns from `column` on; zero for those beyond the last.
static void load_panel(const bf16 *weight, float *panel, long column, long columns, long inner) {
    long there = std::min<long>(COLUMNS, columns - column);
    widen(weight + column * inner, panel, there * inner);
    std::fill(panel + there * inner, panel + COLUMNS * inner, 0.0f);
}
