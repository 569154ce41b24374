// Exponentials of the first `seen` scores over their largest, zero up to `keys`. Gives the logarithm of their sum.
static float weigh(float *score, long seen, long keys, float &sum) {
    float peak = LOWEST, total = 0;
    #pragma omp simd reduction(max : peak)
    for (long time = 0; time < seen; time++) peak = score[time] > peak ? score[time] : peak;
    #pragma omp simd reduction(+ : total)
    for (long time = 0; time < seen; time++) { score[time] = exp_(score[time] - peak); total += score[time]; }
    std::fill(score + seen, score + keys, 0.0f);
    sum = total;
    return peak + std::log(total);
}
