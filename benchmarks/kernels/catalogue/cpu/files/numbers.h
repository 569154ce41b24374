#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

typedef uint16_t bf16;

static const float LOWEST = -3.4e38f;

static inline float from_bits(uint32_t bits) { float value; std::memcpy(&value, &bits, 4); return value; }
static inline uint32_t to_bits(float value) { uint32_t bits; std::memcpy(&bits, &value, 4); return bits; }

static inline float wide(bf16 value) { return from_bits(uint32_t(value) << 16); }

static inline bf16 narrow(float value) {  // to the nearest, ties to even; NaN stays one
    uint32_t bits = to_bits(value);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return bf16((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
}

// Cephes' expf, to 2 units in the last place between -87 and 88 and constant outside; written so that loops vectorise.
static inline float exp_(float x) {
    x = std::min(std::max(x, -87.0f), 88.0f);
    float whole = std::floor(x * 1.44269504f + 0.5f);
    float rest = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    float series = 1.9875691500e-4f;
    series = series * rest + 1.3981999507e-3f;
    series = series * rest + 8.3334519073e-3f;
    series = series * rest + 4.1665795894e-2f;
    series = series * rest + 1.6666665459e-1f;
    series = series * rest + 5.0000001201e-1f;
    series = series * rest * rest + rest + 1.0f;
    return series * from_bits(uint32_t(int32_t(whole) + 127) << 23);
}

static inline float sigmoid(float x) { return 1.0f / (1.0f + exp_(-x)); }

static inline float gelu_tanh(float x) {  // 0.5 (1 + tanh u) = sigmoid(2 u)
    return x * sigmoid(1.5957691216057308f * (x + 0.044715f * x * x * x));
}
