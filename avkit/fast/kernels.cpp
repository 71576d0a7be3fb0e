// The operations that cost the networks most on a CPU, each in one pass over memory: depthwise convolution + norm +
// activation, norm + activation, scale + activation, injection sum, and the SRU's recurrence, forward and backward.
//
// All arrays are contiguous float32. A "plane" is one channel of one item, H x W numbers; one-dimensional signals have
// H = 1. Norms are global (gLN): mean and variance over all planes of an item, the variance from each plane's own mean,
// so that nothing cancels. The backward passes compute convolutions anew instead of keeping their results.
//
// Activation: y = z for z >= 0, slope * z below (slope 1: none, 0: ReLU); `slope_grad` may be null.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

using Index = int64_t;
constexpr Index BLOCK = 4096;  // numbers summed in single precision before the sum goes on in double

struct Conv {  // a depthwise convolution: taps, stride, zeros before each axis, sizes in and out
    Index height, width, out_height, out_width;
    int stride, pad_top, pad_left;
};

inline float activate(float z, float slope) { return (z >= 0 ? 1.f : slope) * z; }

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

double sum(const float* x, Index n) {
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

double squared_deviations(const float* x, Index n, float mean) {
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
    std::memset(padded, 0, sizeof(float) * high * wide);
    for (Index h = 0; h < height; h++)
        std::memcpy(padded + (h + top) * wide + left, x + h * width, sizeof(float) * width);
}

template <int KH, int KW, int S>
void correlate(const float* __restrict padded, Index wide, const float* w, float bias, Index out_height, Index out_width,
               float* __restrict y) {
    for (Index h = 0; h < out_height; h++) {
        const float* row = padded + h * S * wide;
        float* out = y + h * out_width;
#pragma omp simd
        for (Index f = 0; f < out_width; f++) {
            float value = bias;
            for (int i = 0; i < KH; i++)
                for (int j = 0; j < KW; j++) value += w[i * KW + j] * row[i * wide + f * S + j];
            out[f] = value;
        }
    }
}

template <int KH, int KW, int S>
struct Depthwise {
    static Index high(const Conv& s) { return std::max((s.out_height - 1) * S + KH, s.height + s.pad_top); }
    static Index wide(const Conv& s) { return std::max((s.out_width - 1) * S + KW, s.width + s.pad_left); }

    static void forward(const Conv& s, const float* x, const float* w, float bias, float* padded, float* y) {
        Index across = wide(s);
        pad(x, s.height, s.width, s.pad_top, s.pad_left, high(s), across, padded);
        correlate<KH, KW, S>(padded, across, w, bias, s.out_height, s.out_width, y);
    }

    // `padded` is what forward left there; `spare` is of the same size or larger.
    static void backward(const Conv& s, const float* padded, const float* w, const float* dy, float* spare, float* dx,
                         float* dw) {
        Index across = wide(s);
        for (Index h = 0; h < s.out_height; h++) {
            const float* grad = dy + h * s.out_width;
            for (int i = 0; i < KH; i++) {
                const float* row = padded + (h * S + i) * across;
                float parts[KW] = {};
#pragma omp simd reduction(+ : parts[:KW])
                for (Index f = 0; f < s.out_width; f++)
                    for (int j = 0; j < KW; j++) parts[j] += grad[f] * row[f * S + j];
                for (int j = 0; j < KW; j++) dw[i * KW + j] += parts[j];
            }
        }
        if (S == 1) {  // the same convolution with the taps turned round
            float turned[KH * KW];
            for (int k = 0; k < KH * KW; k++) turned[k] = w[KH * KW - 1 - k];
            Index top = KH - 1 - s.pad_top, left = KW - 1 - s.pad_left;
            Index high_out = s.height + KH - 1, wide_out = s.width + KW - 1;
            pad(dy, s.out_height, s.out_width, top, left, high_out, wide_out, spare);
            correlate<KH, KW, 1>(spare, wide_out, turned, 0.f, s.height, s.width, dx);
            return;
        }
        std::memset(spare, 0, sizeof(float) * high(s) * across);
        for (Index h = 0; h < s.out_height; h++)
            for (int i = 0; i < KH; i++) {
                float* row = spare + (h * S + i) * across;
                for (int j = 0; j < KW; j++) {
                    float tap = w[i * KW + j];
                    for (Index f = 0; f < s.out_width; f++) row[f * S + j] += tap * dy[h * s.out_width + f];
                }
            }
        for (Index h = 0; h < s.height; h++)
            std::memcpy(dx + h * s.width, spare + (h + s.pad_top) * across + s.pad_left, sizeof(float) * s.width);
    }

    static Index room(const Conv& s) {
        return std::max(high(s) * wide(s), (s.height + KH) * (s.width + KW));
    }
};

struct Plain {  // no convolution
    static void forward(const Conv& s, const float* x, const float*, float, float*, float* y) {
        std::memcpy(y, x, sizeof(float) * s.height * s.width);
    }
    static void backward(const Conv& s, const float*, const float*, const float* dy, float*, float* dx, float*) {
        std::memcpy(dx, dy, sizeof(float) * s.height * s.width);
    }
    static Index room(const Conv&) { return 1; }
};

struct Norm {  // one plane's normalisation and activation, backwards
    float mean, rstd, gain, shift, slope;

    // Sums over the plane of: the gradient behind the activation, that times the normalised input, and the slope's own.
    void sums(const float* __restrict g, const float* __restrict y, Index n, double* total, double* product,
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
    void through(const float* __restrict g, const float* __restrict y, Index n, double first, double second,
                 float* __restrict dy) const {
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
            float* y = out + p * n;
            Op::forward(s, x + p * in, w + c * taps, bias ? bias[c] : 0.f, padded.data(), y);
            means[p] = sum(y, n) / n;
            deviations[p] = squared_deviations(y, n, static_cast<float>(means[p]));
        }
#pragma omp single
        combine(means.data(), deviations.data(), items, channels, n, eps, mean, rstd);
#pragma omp for
        for (Index p = 0; p < items * channels; p++) {
            Index c = p % channels;
            float scale = gamma[c] * rstd[p / channels], middle = mean[p / channels], shift = beta[c];
            float* y = out + p * n;
#pragma omp simd
            for (Index i = 0; i < n; i++) y[i] = activate((y[i] - middle) * scale + shift, slope);
        }
    }
}

template <class Op>
void norm_backward(const Conv& s, Index items, Index channels, int taps, const float* x, const float* w, const float* bias,
                   const float* gamma, const float* beta, const float* mean, const float* rstd, float slope,
                   const float* grad, float* dx, float* dw, float* dbias, float* dgamma, float* dbeta, float* slope_grad,
                   int threads) {
    Index in = s.height * s.width, n = s.out_height * s.out_width;
    std::vector<double> sums(items * channels), products(items * channels), slopes(items * channels);
    std::vector<double> first(items), second(items);
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> padded(Op::room(s)), spare(Op::room(s)), y(n), dy(n);
#pragma omp for
        for (Index p = 0; p < items * channels; p++) {
            Index b = p / channels, c = p % channels;
            Op::forward(s, x + p * in, w + c * taps, bias ? bias[c] : 0.f, padded.data(), y.data());
            Norm norm{mean[b], rstd[b], gamma[c], beta[c], slope};
            norm.sums(grad + p * n, y.data(), n, &sums[p], &products[p], &slopes[p]);
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
                Op::forward(s, x + p * in, w + c * taps, bias ? bias[c] : 0.f, padded.data(), y.data());
                Norm norm{mean[b], rstd[b], gamma[c], beta[c], slope};
                norm.through(grad + p * n, y.data(), n, first[b], second[b], dy.data());
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

struct Scanned {  // one axis of (items, channels, height, width) as rows of N positions
    Index channels, n, other, rows, steps, item, plane, along, across;

    Scanned(Index items, Index channels, Index height, Index width, int axis, Index window)
        : channels(channels), n(axis == 3 ? width : height), other(axis == 3 ? height : width), rows(items * other),
          steps(n - window + 1), item(channels * height * width), plane(height * width), along(axis == 3 ? 1 : width),
          across(axis == 3 ? width : 1) {}

    Index lines() const { return channels * n; }
    Index at(Index row, Index c, Index position) const {
        return row / other * item + c * plane + row % other * across + position * along;
    }

    // hat (channels, n): each point of the row over its channels, without gain and bias; rstd (n).
    void normalise(const float* x, Index row, float eps, float* __restrict hat, float* __restrict rstd) const {
        std::vector<float> mean(n, 0.f);
        float* middle = mean.data();
        for (Index c = 0; c < channels; c++)
            for (Index i = 0; i < n; i++) {
                float value = x[at(row, c, i)];
                hat[c * n + i] = value;
                middle[i] += value / channels;
            }
        std::fill_n(rstd, n, 0.f);
        for (Index c = 0; c < channels; c++)
#pragma omp simd
            for (Index i = 0; i < n; i++) {
                hat[c * n + i] -= middle[i];
                rstd[i] += hat[c * n + i] * hat[c * n + i];
            }
        for (Index i = 0; i < n; i++) rstd[i] = 1.f / __builtin_sqrtf(rstd[i] / channels + eps);
        for (Index c = 0; c < channels; c++)
#pragma omp simd
            for (Index i = 0; i < n; i++) hat[c * n + i] *= rstd[i];
    }
};

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

// out = activation(x * w[c] + bias[c]) over (items, channels, n).
void avkit_scale_forward(Index items, Index channels, Index n, const float* x, const float* w, const float* bias,
                         float slope, float* out, int threads) {
#pragma omp parallel for num_threads(threads)
    for (Index p = 0; p < items * channels; p++) {
        float gain = w[p % channels], shift = bias ? bias[p % channels] : 0.f;
#pragma omp simd
        for (Index i = p * n; i < (p + 1) * n; i++) out[i] = activate(x[i] * gain + shift, slope);
    }
}

void avkit_scale_backward(Index items, Index channels, Index n, const float* x, const float* w, const float* bias,
                          float slope, const float* grad, float* dx, float* dw, float* dbias, float* slope_grad,
                          int threads) {
    std::vector<double> slopes(channels);
#pragma omp parallel for num_threads(threads)
    for (Index c = 0; c < channels; c++) {
        float gain = w[c], shift = bias ? bias[c] : 0.f;
        double weight = 0, offset = 0, below = 0;
        for (Index b = 0; b < items; b++) {
            Index begin = (b * channels + c) * n;
            for (Index start = begin; start < begin + n; start += BLOCK) {
                float t = 0, q = 0, u = 0;
                Index end = std::min(begin + n, start + BLOCK);
#pragma omp simd reduction(+ : t, q, u)
                for (Index i = start; i < end; i++) {
                    float z = x[i] * gain + shift, passed = (z >= 0 ? 1.f : slope) * grad[i];
                    dx[i] = passed * gain;
                    t += passed;
                    q += passed * x[i];
                    u += (z >= 0 ? 0.f : z) * grad[i];
                }
                offset += t, weight += q, below += u;
            }
        }
        dw[c] = static_cast<float>(weight);
        if (dbias) dbias[c] = static_cast<float>(offset);
        slopes[c] = below;
    }
    double total = 0;
    for (double below : slopes) total += below;
    if (slope_grad) *slope_grad = static_cast<float>(total);
}

// out = local * up(sigmoid(gate)) + up(embedding) + rest; rows and columns say which coarse position each fine one reads.
void avkit_inject_forward(Index planes, Index height, Index width, Index coarse_height, Index coarse_width,
                          const Index* rows, const Index* columns, const float* local, const float* gate,
                          const float* embedding, const float* rest, float* out, int threads) {
    Index fine = height * width, coarse = coarse_height * coarse_width;
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> open(coarse), gates(width), shifts(width);
#pragma omp for
        for (Index p = 0; p < planes; p++) {
            for (Index i = 0; i < coarse; i++) open[i] = sigmoid(gate[p * coarse + i]);
            Index last = -1;
            for (Index h = 0; h < height; h++) {
                if (rows[h] != last) {
                    last = rows[h];
                    const float* from = embedding + p * coarse + last * coarse_width;
                    for (Index f = 0; f < width; f++) {
                        gates[f] = open[last * coarse_width + columns[f]];
                        shifts[f] = from[columns[f]];
                    }
                }
                Index at = p * fine + h * width;
                const float *open_row = gates.data(), *shift_row = shifts.data();
#pragma omp simd
                for (Index f = 0; f < width; f++) out[at + f] = local[at + f] * open_row[f] + shift_row[f];
                if (rest) {
#pragma omp simd
                    for (Index f = 0; f < width; f++) out[at + f] += rest[at + f];
                }
            }
        }
    }
}

void avkit_inject_backward(Index planes, Index height, Index width, Index coarse_height, Index coarse_width,
                           const Index* rows, const Index* columns, const float* local, const float* gate,
                           const float* grad, float* dlocal, float* dgate, float* dembedding, int threads) {
    Index fine = height * width, coarse = coarse_height * coarse_width;
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> open(coarse), gates(width), through(width), products(width);
#pragma omp for
        for (Index p = 0; p < planes; p++) {
            float *to_gate = dgate + p * coarse, *to_embedding = dembedding + p * coarse;
            std::memset(to_gate, 0, sizeof(float) * coarse);
            std::memset(to_embedding, 0, sizeof(float) * coarse);
            for (Index i = 0; i < coarse; i++) open[i] = sigmoid(gate[p * coarse + i]);
            for (Index h = 0; h < height;) {
                Index row = rows[h];
                for (Index f = 0; f < width; f++) gates[f] = open[row * coarse_width + columns[f]];
                std::fill(through.begin(), through.end(), 0.f);
                std::fill(products.begin(), products.end(), 0.f);
                for (; h < height && rows[h] == row; h++) {
                    Index at = p * fine + h * width;
                    const float* open_row = gates.data();
                    float *through_row = through.data(), *product_row = products.data();
#pragma omp simd
                    for (Index f = 0; f < width; f++) {
                        dlocal[at + f] = grad[at + f] * open_row[f];
                        through_row[f] += grad[at + f];
                        product_row[f] += grad[at + f] * local[at + f];
                    }
                }
                for (Index f = 0; f < width; f++) {
                    to_embedding[row * coarse_width + columns[f]] += through[f];
                    to_gate[row * coarse_width + columns[f]] += products[f];
                }
            }
            for (Index i = 0; i < coarse; i++) to_gate[i] *= open[i] * (1.f - open[i]);
        }
    }
}

// Around a scan along one axis of x (items, channels, height, width): `axis` 3 scans the width, 2 the height; N positions
// along it, M along the other. Normalise each point over its channels and cut windows with stride 1:
// out (N - window + 1, items * M, channels * window).
void avkit_windows_forward(Index items, Index channels, Index height, Index width, int axis, Index window, const float* x,
                           const float* gamma, const float* beta, float eps, float* out, int threads) {
    Scanned s(items, channels, height, width, axis, window);
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> hat(s.lines()), rstd(s.n), tile(s.lines());
#pragma omp for
        for (Index row = 0; row < s.rows; row++) {
            s.normalise(x, row, eps, hat.data(), rstd.data());
            for (Index c = 0; c < channels; c++)
                for (Index n = 0; n < s.n; n++) tile[c * s.n + n] = hat[c * s.n + n] * gamma[c] + beta[c];
            for (Index n = 0; n < s.steps; n++) {
                float* to = out + (n * s.rows + row) * channels * window;
                for (Index c = 0; c < channels; c++)
                    for (Index k = 0; k < window; k++) to[c * window + k] = tile[c * s.n + n + k];
            }
        }
    }
}

// `parts` (items * M, 2, channels): each row's share of the gradients of gamma and beta.
void avkit_windows_backward(Index items, Index channels, Index height, Index width, int axis, Index window, const float* x,
                            const float* gamma, float eps, const float* grad, float* dx, float* parts, int threads) {
    Scanned s(items, channels, height, width, axis, window);
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> hat(s.lines()), rstd(s.n), tile(s.lines()), first(s.n), second(s.n);
#pragma omp for
        for (Index row = 0; row < s.rows; row++) {
            s.normalise(x, row, eps, hat.data(), rstd.data());
            std::fill(tile.begin(), tile.end(), 0.f);
            for (Index n = 0; n < s.steps; n++) {
                const float* from = grad + (n * s.rows + row) * channels * window;
                for (Index c = 0; c < channels; c++)
                    for (Index k = 0; k < window; k++) tile[c * s.n + n + k] += from[c * window + k];
            }
            std::fill(first.begin(), first.end(), 0.f);
            std::fill(second.begin(), second.end(), 0.f);
            for (Index c = 0; c < channels; c++) {
                float gain = gamma[c] / channels, weight = 0, offset = 0;
                const float *d = tile.data() + c * s.n, *h = hat.data() + c * s.n;
                float *m1 = first.data(), *m2 = second.data();
#pragma omp simd reduction(+ : weight, offset)
                for (Index n = 0; n < s.n; n++) {
                    weight += d[n] * h[n];
                    offset += d[n];
                    m1[n] += gain * d[n];
                    m2[n] += gain * d[n] * h[n];
                }
                parts[(row * 2) * channels + c] = weight;
                parts[(row * 2 + 1) * channels + c] = offset;
            }
            for (Index c = 0; c < channels; c++)
                for (Index n = 0; n < s.n; n++) {
                    float h = hat[c * s.n + n];
                    dx[s.at(row, c, n)] = (gamma[c] * tile[c * s.n + n] - first[n] - h * second[n]) * rstd[n];
                }
        }
    }
}

// Windows (N - window + 1, items * M, channels * window) added where they overlap, plus bias and `rest`: as x's shape.
void avkit_overlap_forward(Index items, Index channels, Index height, Index width, int axis, Index window,
                           const float* windows, const float* bias, const float* rest, float* out, int threads) {
    Scanned s(items, channels, height, width, axis, window);
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> tile(s.lines());
#pragma omp for
        for (Index row = 0; row < s.rows; row++) {
            for (Index c = 0; c < channels; c++) std::fill_n(tile.data() + c * s.n, s.n, bias[c]);
            for (Index n = 0; n < s.steps; n++) {
                const float* from = windows + (n * s.rows + row) * channels * window;
                for (Index c = 0; c < channels; c++)
                    for (Index k = 0; k < window; k++) tile[c * s.n + n + k] += from[c * window + k];
            }
            for (Index c = 0; c < channels; c++)
                for (Index n = 0; n < s.n; n++) {
                    Index at = s.at(row, c, n);
                    out[at] = tile[c * s.n + n] + rest[at];
                }
        }
    }
}

void avkit_overlap_backward(Index items, Index channels, Index height, Index width, int axis, Index window,
                            const float* grad, float* dwindows, int threads) {
    Scanned s(items, channels, height, width, axis, window);
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> tile(s.lines());
#pragma omp for
        for (Index row = 0; row < s.rows; row++) {
            for (Index c = 0; c < channels; c++)
                for (Index n = 0; n < s.n; n++) tile[c * s.n + n] = grad[s.at(row, c, n)];
            for (Index n = 0; n < s.steps; n++) {
                float* to = dwindows + (n * s.rows + row) * channels * window;
                for (Index c = 0; c < channels; c++)
                    for (Index k = 0; k < window; k++) to[c * window + k] = tile[c * s.n + n + k];
            }
        }
    }
}

// One layer of SRU (see avkit/sru.py). products (L, B, k, W), W = directions * d, columns direction-major; the highway is
// the fourth product or, for k = 3, x (L, B, W). cells and out (L, B, W).
void avkit_sru_forward(Index length, Index items, Index d, int directions, int k, const float* products, const float* x,
                       const float* weight_c, const float* bias, float* cells, float* out, int threads) {
    Index w = directions * d;
    const float *v_f = weight_c, *v_r = weight_c + w, *b_f = bias, *b_r = bias + w;
#pragma omp parallel for num_threads(threads) collapse(2)
    for (int direction = 0; direction < directions; direction++)
        for (Index b = 0; b < items; b++) {
            Index own = direction * d;
            float c[512] = {};
            for (Index step = 0; step < length; step++) {
                Index t = direction ? length - 1 - step : step;
                const float* u = products + ((t * items + b) * k) * w + own;
                Index at = (t * items + b) * w + own;
                const float* highway = k == 4 ? u + 3 * w : x + at;
#pragma omp simd
                for (Index i = 0; i < d; i++) {
                    float f = sigmoid(u[w + i] + b_f[own + i] + v_f[own + i] * c[i]);
                    float r = sigmoid(u[2 * w + i] + b_r[own + i] + v_r[own + i] * c[i]);
                    c[i] = u[i] + f * (c[i] - u[i]);
                    cells[at + i] = c[i];
                    out[at + i] = highway[i] + r * (c[i] - highway[i]);
                }
            }
        }
}

// The gates are computed anew from products and cells. dx (L, B, W) is written for k = 3; parts is
// (directions * items, 4, d): each item's share of the gradients of v_f, v_r, b_f, b_r.
void avkit_sru_backward(Index length, Index items, Index d, int directions, int k, const float* products, const float* x,
                        const float* weight_c, const float* bias, const float* cells, const float* grad, float* dproducts,
                        float* dx, float* parts, int threads) {
    Index w = directions * d;
    const float *v_f = weight_c, *v_r = weight_c + w, *b_f = bias, *b_r = bias + w;
#pragma omp parallel for num_threads(threads) collapse(2)
    for (int direction = 0; direction < directions; direction++)
        for (Index b = 0; b < items; b++) {
            Index own = direction * d;
            float carried[512] = {}, none[512] = {};
            float* share = parts + (direction * items + b) * 4 * d;
            std::memset(share, 0, sizeof(float) * 4 * d);
            for (Index step = length - 1; step >= 0; step--) {
                Index t = direction ? length - 1 - step : step;
                Index before = direction ? t + 1 : t - 1;
                const float* u = products + ((t * items + b) * k) * w + own;
                float* du = dproducts + ((t * items + b) * k) * w + own;
                Index at = (t * items + b) * w + own;
                const float* past = step ? cells + (before * items + b) * w + own : none;
                const float* highway = k == 4 ? u + 3 * w : x + at;
                float* dhighway = k == 4 ? du + 3 * w : dx + at;
#pragma omp simd
                for (Index i = 0; i < d; i++) {
                    float f = sigmoid(u[w + i] + b_f[own + i] + v_f[own + i] * past[i]);
                    float r = sigmoid(u[2 * w + i] + b_r[own + i] + v_r[own + i] * past[i]);
                    float g = grad[at + i], c = cells[at + i];
                    float dr = g * (c - highway[i]) * r * (1.f - r);
                    float dc = g * r + carried[i];
                    float df = dc * (past[i] - u[i]) * f * (1.f - f);
                    dhighway[i] = g * (1.f - r);
                    du[i] = dc * (1.f - f);
                    du[w + i] = df;
                    du[2 * w + i] = dr;
                    carried[i] = dc * f + df * v_f[own + i] + dr * v_r[own + i];
                    share[i] += df * past[i];
                    share[d + i] += dr * past[i];
                    share[2 * d + i] += df;
                    share[3 * d + i] += dr;
                }
            }
        }
}

}  // extern "C"
