// What the compiled operations share. All arrays are contiguous float32.
//
// Activation: y = z for z >= 0, slope * z below (slope 1: none, 0: ReLU).

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

namespace {

using Index = int64_t;
constexpr Index BLOCK = 4096;  // numbers summed in single precision before the sum goes on in double

// Sixteen numbers side by side, as the compiler maps them to the processor's vectors.
typedef float Lanes __attribute__((vector_size(64), aligned(4), may_alias));
constexpr Index LANES = 16;

inline Index rounded(Index n) { return (n + LANES - 1) / LANES * LANES; }
inline Lanes load(const float* from) { return *reinterpret_cast<const Lanes*>(from); }
inline void store(float* to, Lanes lanes) { *reinterpret_cast<Lanes*>(to) = lanes; }

inline float activate(float z, float slope) { return (z >= 0 ? 1.f : slope) * z; }

inline float rectify(float z) { return z < 0 ? 0.f : z; }  // lets NaN through

// e^x for |x| < 87, to rounding; the compiler turns loops over it into vector code.
inline float exponential(float x) {
    x = x > 87.f ? 87.f : (x < -87.f ? -87.f : x);
    float n = __builtin_floorf(x * 1.44269504f + 0.5f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.f;
    int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, 4);
    return p * power;
}

inline float sigmoid(float x) { return 1.f / (1.f + exponential(-x)); }

inline double sum(const float* x, Index n) {
    double total = 0;
    for (Index start = 0; start < n; start += BLOCK) {
        float part = 0;
        Index end = std::min(n, start + BLOCK);
#pragma omp simd reduction(+ : part)
        for (Index i = start; i < end; i++) part += x[i];
        total += part;
    }
    return total;
}

inline double squared_deviations(const float* x, Index n, float mean) {
    double total = 0;
    for (Index start = 0; start < n; start += BLOCK) {
        float part = 0;
        Index end = std::min(n, start + BLOCK);
#pragma omp simd reduction(+ : part)
        for (Index i = start; i < end; i++) part += (x[i] - mean) * (x[i] - mean);
        total += part;
    }
    return total;
}

}  // namespace
