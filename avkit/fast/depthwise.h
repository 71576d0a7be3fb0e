// Depthwise convolutions of one plane, H x W numbers (one-dimensional signals have H = 1), forward and backward.

#pragma once

#include "common.h"

namespace {

struct Conv {  // a depthwise convolution: taps, stride, zeros before each axis, sizes in and out
    Index height, width, out_height, out_width;
    int stride, pad_top, pad_left;
};

struct Same {
    float operator()(float x) const { return x; }
};

// The plane with its border of zeros, rows as far apart as `wide`, each number passed through `map`.
template <class Map>
void pad(const float* x, Index height, Index width, Index top, Index left, Index high, Index wide, float* __restrict padded,
         Map map) {
    std::fill_n(padded, top * wide, 0.f);
    std::fill(padded + (top + height) * wide, padded + high * wide, 0.f);
    for (Index h = 0; h < height; h++) {
        float* row = padded + (h + top) * wide;
        for (Index f = 0; f < left; f++) row[f] = 0;
#pragma omp simd
        for (Index f = 0; f < width; f++) row[left + f] = map(x[h * width + f]);
        for (Index f = left + width; f < wide; f++) row[f] = 0;
    }
}

// Calls f(r, k, x) for every row r of R, beside each other, and every tap k that it meets in x, LANES numbers of a padded
// plane from `at` on: each number is loaded once and serves R rows.
template <int KH, int KW, int R, class F>
inline __attribute__((always_inline)) void each_tap(const float* at, Index wide, F&& f) {
#pragma GCC unroll 8
    for (int i = 0; i < KH + R - 1; i++)
#pragma GCC unroll 8
        for (int j = 0; j < KW; j++) {
            Lanes x = load(at + i * wide + j);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++)
                if (i >= r && i - r < KH) f(r, (i - r) * KW + j, x);
        }
}

// R rows of a convolution with stride 1 at once.
template <int KH, int KW, int R>
void correlate_rows(const float* padded, Index wide, const float* w, float bias, Index width, float* y) {
    for (Index f = 0; f < width; f += LANES) {
        Lanes sums[R];
        for (int r = 0; r < R; r++) sums[r] = Lanes{} + bias;
        each_tap<KH, KW, R>(padded + f, wide, [&](int r, int k, Lanes x) { sums[r] += w[k] * x; });
        Index count = std::min(LANES, width - f);
        for (int r = 0; r < R; r++) {
            if (count == LANES)
                store(y + r * width + f, sums[r]);
            else
                std::memcpy(y + r * width + f, &sums[r], sizeof(float) * count);
        }
    }
}

// dw += what each tap met, over R rows of gradients; both planes are padded, with zeros after each row of gradients.
template <int KH, int KW, int R>
void taps_rows(const float* padded, const float* grads, Index wide, Index width, float* dw) {
    Lanes sums[KH * KW] = {};
    for (Index f = 0; f < width; f += LANES) {
        Lanes g[R];
        for (int r = 0; r < R; r++) g[r] = load(grads + r * wide + f);
        each_tap<KH, KW, R>(padded + f, wide, [&](int r, int k, Lanes x) { sums[k] += g[r] * x; });
    }
    for (int k = 0; k < KH * KW; k++)
        for (int lane = 0; lane < LANES; lane++) dw[k] += sums[k][lane];
}

template <int KH, int KW, int S>
struct Depthwise {
    static constexpr bool PLAIN = false;
    static constexpr int ROWS = KH == 1 ? 1 : 4;

    static Index high(const Conv& s) { return std::max((s.out_height - 1) * S + KH, s.height + s.pad_top); }
    static Index wide(const Conv& s) {
        return rounded(std::max((s.out_width - 1) * S + KW, std::max(s.width, s.out_width) + KW)) + LANES;
    }

    template <class Map = Same>
    static void fill(const Conv& s, const float* x, float* padded, Map map = {}) {
        pad(x, s.height, s.width, s.pad_top, s.pad_left, high(s), wide(s), padded, map);
    }

    // y from what `fill` wrote.
    static void convolve(const Conv& s, const float* padded, const float* w, float bias, float* y) {
        Index across = wide(s), h = 0;
        if (S == 1) return correlate(padded, across, w, bias, s.out_height, s.out_width, y);
        for (; h < s.out_height; h++) {
            const float* row = padded + h * S * across;
            float* out = y + h * s.out_width;
#pragma omp simd
            for (Index f = 0; f < s.out_width; f++) {
                float value = bias;
                for (int i = 0; i < KH; i++)
                    for (int j = 0; j < KW; j++) value += w[i * KW + j] * row[i * across + f * S + j];
                out[f] = value;
            }
        }
    }

    static void correlate(const float* padded, Index across, const float* w, float bias, Index height, Index width,
                          float* y) {
        Index h = 0;
        for (; h + ROWS <= height; h += ROWS)
            correlate_rows<KH, KW, ROWS>(padded + h * across, across, w, bias, width, y + h * width);
        for (; h < height; h++) correlate_rows<KH, KW, 1>(padded + h * across, across, w, bias, width, y + h * width);
    }

    // dx, and dw added to, from what `fill` wrote; `spare` has the same room.
    static void backward(const Conv& s, const float* padded, const float* w, const float* dy, float* spare, float* dx,
                         float* dw) {
        return S == 1 ? backward_same(s, padded, w, dy, spare, dx, dw) : backward_strided(s, padded, w, dy, spare, dx, dw);
    }

    static void backward_same(const Conv& s, const float* padded, const float* w, const float* dy, float* spare, float* dx,
                              float* dw) {
        Index across = wide(s), top = KH - 1 - s.pad_top, left = KW - 1 - s.pad_left, h = 0;
        pad(dy, s.out_height, s.out_width, top, left, s.height + KH - 1, across, spare, Same{});
        const float* grads = spare + top * across + left;
        for (; h + ROWS <= s.out_height; h += ROWS)
            taps_rows<KH, KW, ROWS>(padded + h * across, grads + h * across, across, s.out_width, dw);
        for (; h < s.out_height; h++)
            taps_rows<KH, KW, 1>(padded + h * across, grads + h * across, across, s.out_width, dw);
        float turned[KH * KW];  // the same convolution with the taps turned round
        for (int k = 0; k < KH * KW; k++) turned[k] = w[KH * KW - 1 - k];
        correlate(spare, across, turned, 0.f, s.height, s.width, dx);
    }

    static void backward_strided(const Conv& s, const float* padded, const float* w, const float* dy, float* spare,
                                 float* dx, float* dw) {
        Index across = wide(s);
        std::memset(spare, 0, sizeof(float) * high(s) * across);
        for (Index h = 0; h < s.out_height; h++) {
            const float* grad = dy + h * s.out_width;
            for (int i = 0; i < KH; i++) {
                const float* row = padded + (h * S + i) * across;
                float parts[KW] = {};
#pragma omp simd reduction(+ : parts[:KW])
                for (Index f = 0; f < s.out_width; f++)
                    for (int j = 0; j < KW; j++) parts[j] += grad[f] * row[f * S + j];
                for (int j = 0; j < KW; j++) dw[i * KW + j] += parts[j];
                float* into = spare + (h * S + i) * across;
                for (int j = 0; j < KW; j++) {
                    float tap = w[i * KW + j];
                    for (Index f = 0; f < s.out_width; f++) into[f * S + j] += tap * grad[f];
                }
            }
        }
        for (Index h = 0; h < s.height; h++)
            std::memcpy(dx + h * s.width, spare + (h + s.pad_top) * across + s.pad_left, sizeof(float) * s.width);
    }

    static Index room(const Conv& s) { return (std::max(high(s), s.height + KH - 1)) * wide(s); }
};

struct Plain {  // no convolution
    static constexpr bool PLAIN = true;

    template <class Map = Same>
    static void fill(const Conv&, const float*, float*, Map = {}) {}
    static void convolve(const Conv&, const float*, const float*, float, float*) {}
    static void backward(const Conv&, const float*, const float*, const float*, float*, float*, float*) {}
    static Index room(const Conv&) { return 1; }
};

template <class F>
bool dispatch(int kh, int kw, int stride, F&& f) {
    if (kh == 0) return f(Plain{}), true;
    if (kh == 4 && kw == 4) return stride == 1 ? f(Depthwise<4, 4, 1>{}) : f(Depthwise<4, 4, 2>{}), true;
    if (kh == 1 && kw == 5) return stride == 1 ? f(Depthwise<1, 5, 1>{}) : f(Depthwise<1, 5, 2>{}), true;
    if (kh == 1 && kw == 1 && stride == 1) return f(Depthwise<1, 1, 1>{}), true;
    if (kh == 1 && kw == 3) return stride == 1 ? f(Depthwise<1, 3, 1>{}) : f(Depthwise<1, 3, 2>{}), true;
    return false;
}

}  // namespace
