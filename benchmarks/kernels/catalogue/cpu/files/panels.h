// Products of M rows of `a` with a panel of `b` of 16 columns: the sums stay in registers, nothing is added across lanes.
enum { LANES = 8, PANEL = 2 * LANES };
typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4)));

template <int M>
static inline void panel(const float *a, long of_a, const float *b, long of_b, float *out, long of_out, long inner) {
    lanes sums[M][2] = {};
    for (long k = 0; k < inner; k++) {
        lanes left = *(const lanes *)(b + k * of_b), right = *(const lanes *)(b + k * of_b + LANES);
        for (int m = 0; m < M; m++) {
            sums[m][0] += a[m * of_a + k] * left;
            sums[m][1] += a[m * of_a + k] * right;
        }
    }
    for (int m = 0; m < M; m++) {
        *(lanes *)(out + m * of_out) = sums[m][0];
        *(lanes *)(out + m * of_out + LANES) = sums[m][1];
    }
}

// a (rows, inner) times b (inner, columns) to out; columns are a multiple of 16.
static void product(
    const float *a, long of_a, const float *b, long of_b, float *out, long of_out, long rows, long inner, long columns) {
    for (long column = 0; column < columns; column += PANEL) {
        long row = 0;
        for (; row + ROWS <= rows; row += ROWS)
            panel<ROWS>(a + row * of_a, of_a, b + column, of_b, out + row * of_out + column, of_out, inner);
        for (; row < rows; row++)
            panel<1>(a + row * of_a, of_a, b + column, of_b, out + row * of_out + column, of_out, inner);
    }
}

static inline long whole(long size) { return (size + PANEL - 1) / PANEL * PANEL; }
