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

typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));

static inline lanes wide_lanes(const bf16 *from) {
    return (lanes)(__builtin_convertvector(*(const halves *)from, words) << 16);
}

// One row: reads bf16 weights as they are, for they are used once, in one stream, into four sums that do not wait.
static void row_times(const float *a, const bf16 *b, float *out, long inner, long columns) {
    for (long column = 0; column < columns; column++, b += inner) {
        lanes sums[4] = {};
        long k = 0;
        for (; k + 4 * LANES <= inner; k += 4 * LANES)
            for (int part = 0; part < 4; part++)
                sums[part] += *(const lanes *)(a + k + part * LANES) * wide_lanes(b + k + part * LANES);
        lanes all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        float sum = 0;
        for (int lane = 0; lane < LANES; lane++) sum += all[lane];
        for (; k < inner; k++) sum += a[k] * wide(b[k]);
        out[column] = sum;
    }
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
