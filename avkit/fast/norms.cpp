// Depthwise convolution + norm + activation and norm + activation, each in one pass over memory, forward and backward.
//
// A "plane" is one channel of one item, H x W numbers; one-dimensional signals have H = 1. Norms are global (gLN): mean and
// variance over all planes of an item, the variance from each plane's own mean, so that nothing cancels. The backward
// passes compute convolutions anew instead of keeping their results from the forward pass. `slope_grad` may be null.

#include "common.h"

namespace {

struct Conv {  // a depthwise convolution: taps, stride, zeros before each axis, sizes in and out
    Index height, width, out_height, out_width;
    int stride, pad_top, pad_left;
};

// Mean and 1 / deviation of each item from its planes' means and squared deviations.
void combine(const double* means, const double* deviations, Index items, Index channels, Index n, float eps, float* mean,
             float* rstd) {
    for (Index b = 0; b < items; b++) {
        double average = 0, squares = 0;
        for (Index c = 0; c < channels; c++) average += means[b * channels + c] / channels;
        for (Index c = 0; c < channels; c++) {
            double off = means[b * channels + c] - average;
            squares += deviations[b * channels + c] + n * off * off;
        }
        mean[b] = static_cast<float>(average);
        rstd[b] = static_cast<float>(1 / __builtin_sqrt(squares / (double(channels) * n) + eps));
    }
}

// The plane with its border of zeros, rows as far apart as `wide`.
void pad(const float* x, Index height, Index width, Index top, Index left, Index high, Index wide, float* padded) {
    std::fill_n(padded, top * wide, 0.f);
    std::fill(padded + (top + height) * wide, padded + high * wide, 0.f);
    for (Index h = 0; h < height; h++) {
        float* row = padded + (h + top) * wide;
        for (Index f = 0; f < left; f++) row[f] = 0;
#pragma omp simd
        for (Index f = 0; f < width; f++) row[left + f] = x[h * width + f];
        for (Index f = left + width; f < wide; f++) row[f] = 0;
    }
}

// R rows of a convolution with stride 1 at once, so that each number read serves R sums.
template <int KH, int KW, int R>
void correlate_rows(const float* padded, Index wide, const float* w, float bias, Index width, float* y) {
    for (Index f = 0; f < width; f += LANES) {
        Lanes sums[R];
        for (int r = 0; r < R; r++) sums[r] = Lanes{} + bias;
#pragma GCC unroll 8
        for (int i = 0; i < KH + R - 1; i++)
#pragma GCC unroll 8
            for (int j = 0; j < KW; j++) {
                Lanes x = load(padded + i * wide + f + j);
#pragma GCC unroll 8
                for (int r = 0; r < R; r++)
                    if (i >= r && i - r < KH) sums[r] += w[(i - r) * KW + j] * x;
            }
        Index count = std::min(LANES, width - f);
        for (int r = 0; r < R; r++) {
            if (count == LANES)
                *reinterpret_cast<Lanes*>(y + r * width + f) = sums[r];
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
#pragma GCC unroll 8
        for (int i = 0; i < KH + R - 1; i++)
#pragma GCC unroll 8
            for (int j = 0; j < KW; j++) {
                Lanes x = load(padded + i * wide + f + j);
#pragma GCC unroll 8
                for (int r = 0; r < R; r++)
                    if (i >= r && i - r < KH) sums[(i - r) * KW + j] += g[r] * x;
            }
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

    static void fill(const Conv& s, const float* x, float* padded) {
        pad(x, s.height, s.width, s.pad_top, s.pad_left, high(s), wide(s), padded);
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
        pad(dy, s.out_height, s.out_width, top, left, s.height + KH - 1, across, spare);
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

    static void fill(const Conv&, const float*, float*) {}
    static void convolve(const Conv&, const float*, const float*, float, float*) {}
    static void backward(const Conv&, const float*, const float*, const float*, float*, float*, float*) {}
    static Index room(const Conv&) { return 1; }
};

struct Norm {  // one plane's normalisation and activation, backwards
    float mean, rstd, gain, shift, slope;

    // Sums over the plane of: the gradient behind the activation, that times the normalised input, and the slope's own.
    void sums(const float* g, const float* y, Index n, double* total, double* product,
              double* below) const {
        *total = *product = *below = 0;
        for (Index start = 0; start < n; start += BLOCK) {
            float t = 0, q = 0, u = 0;
            Index end = std::min(n, start + BLOCK);
#pragma omp simd reduction(+ : t, q, u)
            for (Index i = start; i < end; i++) {
                float hat = (y[i] - mean) * rstd, z = hat * gain + shift;
                float passed = (z >= 0 ? 1.f : slope) * g[i];
                t += passed;
                q += passed * hat;
                u += (z >= 0 ? 0.f : z) * g[i];
            }
            *total += t, *product += q, *below += u;
        }
    }

    // The gradient before the norm, given the item's mean gradients.
    void through(const float* g, const float* y, Index n, double first, double second, float* dy) const {
        float m1 = static_cast<float>(first), m2 = static_cast<float>(second);
#pragma omp simd
        for (Index i = 0; i < n; i++) {
            float hat = (y[i] - mean) * rstd, z = hat * gain + shift;
            float passed = (z >= 0 ? 1.f : slope) * g[i];
            dy[i] = (gain * passed - m1 - hat * m2) * rstd;
        }
    }
};

template <class Op>
void norm_forward(const Conv& s, Index items, Index channels, int taps, const float* x, const float* w, const float* bias,
                  const float* gamma, const float* beta, float eps, float slope, float* out, float* mean, float* rstd,
                  int threads) {
    Index in = s.height * s.width, n = s.out_height * s.out_width;
    std::vector<double> means(items * channels), deviations(items * channels);
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> padded(Op::room(s));
#pragma omp for
        for (Index p = 0; p < items * channels; p++) {
            Index c = p % channels;
            Op::fill(s, x + p * in, padded.data());
            Op::convolve(s, padded.data(), w + c * taps, bias ? bias[c] : 0.f, out + p * n);
            const float* y = (Op::PLAIN ? x : out) + p * n;
            means[p] = sum(y, n) / n;
            deviations[p] = squared_deviations(y, n, static_cast<float>(means[p]));
        }
#pragma omp single
        combine(means.data(), deviations.data(), items, channels, n, eps, mean, rstd);
#pragma omp for
        for (Index p = 0; p < items * channels; p++) {
            Index c = p % channels;
            float scale = gamma[c] * rstd[p / channels], middle = mean[p / channels], shift = beta[c];
            const float* y = (Op::PLAIN ? x : out) + p * n;
            float* to = out + p * n;
#pragma omp simd
            for (Index i = 0; i < n; i++) to[i] = activate((y[i] - middle) * scale + shift, slope);
        }
    }
}

template <class Op>
void norm_backward(const Conv& s, Index items, Index channels, int taps, const float* x, const float* w, const float* bias,
                   const float* gamma, const float* beta, const float* mean, const float* rstd, float slope,
                   const float* grad, float* dx, float* dw, float* dbias, float* dgamma, float* dbeta, float* slope_grad,
                   int threads) {
    Index in = s.height * s.width, n = s.out_height * s.out_width;
    bool kept = in == n;  // then dx holds the convolution's result between the two rounds
    std::vector<double> sums(items * channels), products(items * channels), slopes(items * channels);
    std::vector<double> first(items), second(items);
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> padded(Op::room(s)), spare(Op::room(s)), y(n), dy(n);
#pragma omp for
        for (Index p = 0; p < items * channels; p++) {
            Index b = p / channels, c = p % channels;
            float* result = kept ? dx + p * n : y.data();
            Op::fill(s, x + p * in, padded.data());
            Op::convolve(s, padded.data(), w + c * taps, bias ? bias[c] : 0.f, result);
            Norm norm{mean[b], rstd[b], gamma[c], beta[c], slope};
            norm.sums(grad + p * n, Op::PLAIN ? x + p * n : result, n, &sums[p], &products[p], &slopes[p]);
        }
#pragma omp single
        {
            double count = double(channels) * n;
            for (Index b = 0; b < items; b++) {
                first[b] = second[b] = 0;
                for (Index c = 0; c < channels; c++) {
                    first[b] += gamma[c] * sums[b * channels + c] / count;
                    second[b] += gamma[c] * products[b * channels + c] / count;
                }
            }
        }
#pragma omp for
        for (Index c = 0; c < channels; c++) {
            float taps_grad[32] = {};
            double bias_total = 0;
            for (Index b = 0; b < items; b++) {
                Index p = b * channels + c;
                const float* result = Op::PLAIN ? x + p * n : kept ? dx + p * n : y.data();
                Op::fill(s, x + p * in, padded.data());
                if (!kept) Op::convolve(s, padded.data(), w + c * taps, bias ? bias[c] : 0.f, y.data());
                Norm norm{mean[b], rstd[b], gamma[c], beta[c], slope};
                norm.through(grad + p * n, result, n, first[b], second[b], Op::PLAIN ? dx + p * n : dy.data());
                if (dbias) bias_total += sum(dy.data(), n);
                Op::backward(s, padded.data(), w + c * taps, dy.data(), spare.data(), dx + p * in, taps_grad);
            }
            for (int k = 0; k < taps; k++) dw[c * taps + k] = taps_grad[k];
            if (dbias) dbias[c] = static_cast<float>(bias_total);
            double gains = 0, shifts = 0;
            for (Index b = 0; b < items; b++) gains += products[b * channels + c], shifts += sums[b * channels + c];
            dgamma[c] = static_cast<float>(gains);
            dbeta[c] = static_cast<float>(shifts);
        }
    }
    if (slope_grad) {
        double total = 0;
        for (double below : slopes) total += below;
        *slope_grad = static_cast<float>(total);
    }
}

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

extern "C" {

// x (items, channels, height, width) -> out (items, channels, out_height, out_width). kh = 0: no convolution.
int avkit_norm_forward(Index items, Index channels, Index height, Index width, Index out_height, Index out_width, int kh,
                       int kw, int stride, int pad_top, int pad_left, const float* x, const float* w, const float* bias,
                       const float* gamma, const float* beta, float eps, float slope, float* out, float* mean, float* rstd,
                       int threads) {
    Conv s{height, width, out_height, out_width, stride, pad_top, pad_left};
    return !dispatch(kh, kw, stride, [&](auto op) {
        norm_forward<decltype(op)>(s, items, channels, kh * kw, x, w, bias, gamma, beta, eps, slope, out, mean, rstd,
                                   threads);
    });
}

int avkit_norm_backward(Index items, Index channels, Index height, Index width, Index out_height, Index out_width, int kh,
                        int kw, int stride, int pad_top, int pad_left, const float* x, const float* w, const float* bias,
                        const float* gamma, const float* beta, const float* mean, const float* rstd, float slope,
                        const float* grad, float* dx, float* dw, float* dbias, float* dgamma, float* dbeta,
                        float* slope_grad, int threads) {
    Conv s{height, width, out_height, out_width, stride, pad_top, pad_left};
    return !dispatch(kh, kw, stride, [&](auto op) {
        norm_backward<decltype(op)>(s, items, channels, kh * kw, x, w, bias, gamma, beta, mean, rstd, slope, grad, dx, dw,
                                    dbias, dgamma, dbeta, slope_grad, threads);
    });
}

}  // extern "C"
