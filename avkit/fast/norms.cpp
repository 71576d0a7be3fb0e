// Depthwise convolution + norm + activation and norm + activation, each in one pass over memory, forward and backward.
//
// A "plane" is one channel of one item, H x W numbers; one-dimensional signals have H = 1. Norms are global (gLN): mean and
// variance over all planes of an item, the variance from each plane's own mean, so that nothing cancels. The backward
// passes compute convolutions anew instead of keeping their results from the forward pass. `slope_grad` may be null.

#include "depthwise.h"

namespace {

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
                float passed = (z > 0 ? 1.f : slope) * g[i];
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
            float passed = (z > 0 ? 1.f : slope) * g[i];
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
