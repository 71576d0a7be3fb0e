// Products and sums position by position, each in one pass over memory, forward and backward: scale + activation,
// injection sum, the fusion of RTFS-Net (CAF) and its complex mask (S3). Pointers that may be null say so.

#include "common.h"

namespace {

inline double total(const std::vector<double>& parts) {
    double sum = 0;
    for (double part : parts) sum += part;
    return sum;
}

// A block of x, with `rest` added into `buffer` where there is one.
inline const float* added(const float* x, const float* rest, Index start, Index n, float* __restrict buffer) {
    if (!rest) return x + start;
#pragma omp simd
    for (Index i = 0; i < n; i++) buffer[i] = x[start + i] + rest[start + i];
    return buffer;
}

}  // namespace

extern "C" {

// out = activation((x + rest) * w[c] + bias[c]) + after[c] over (items, channels, n); `rest`, `bias`, `after` may be null.
void avkit_scale_forward(Index items, Index channels, Index n, const float* x, const float* rest, const float* w,
                         const float* bias, const float* after, float slope, float* out, int threads) {
#pragma omp parallel for num_threads(threads)
    for (Index p = 0; p < items * channels; p++) {
        float buffer[BLOCK], gain = w[p % channels], shift = bias ? bias[p % channels] : 0.f;
        float more = after ? after[p % channels] : 0.f;
        for (Index start = p * n; start < (p + 1) * n; start += BLOCK) {
            Index count = std::min(BLOCK, (p + 1) * n - start);
            const float* in = added(x, rest, start, count, buffer);
            float* to = out + start;
#pragma omp simd
            for (Index i = 0; i < count; i++) to[i] = activate(in[i] * gain + shift, slope) + more;
        }
    }
}

// dx is the gradient of `rest` too; `dbias` and `slope_grad` may be null.
void avkit_scale_backward(Index items, Index channels, Index n, const float* x, const float* rest, const float* w,
                          const float* bias, float slope, const float* grad, float* dx, float* dw, float* dbias,
                          float* slope_grad, int threads) {
    std::vector<double> slopes(channels);
#pragma omp parallel for num_threads(threads)
    for (Index c = 0; c < channels; c++) {
        float buffer[BLOCK], gain = w[c], shift = bias ? bias[c] : 0.f;
        double weight = 0, offset = 0, below = 0;
        for (Index b = 0; b < items; b++) {
            Index end = (b * channels + c + 1) * n;
            for (Index start = end - n; start < end; start += BLOCK) {
                Index count = std::min(BLOCK, end - start);
                const float *in = added(x, rest, start, count, buffer), *g = grad + start;
                float *to = dx + start, t = 0, q = 0, u = 0;
#pragma omp simd reduction(+ : t, q, u)
                for (Index i = 0; i < count; i++) {
                    float z = in[i] * gain + shift, passed = (z > 0 ? 1.f : slope) * g[i];
                    to[i] = passed * gain;
                    t += passed;
                    q += passed * in[i];
                    u += (z >= 0 ? 0.f : z) * g[i];
                }
                offset += t, weight += q, below += u;
            }
        }
        dw[c] = static_cast<float>(weight);
        if (dbias) dbias[c] = static_cast<float>(offset);
        slopes[c] = below;
    }
    if (slope_grad) *slope_grad = static_cast<float>(total(slopes));
}

// In place: x = activation(x * scale[c] + shift[c] + rest) over (items, channels, n), or over (items, n, channels) with
// `last`; `slope` (channels), `rest` may be null.
void avkit_affine(Index items, Index channels, Index n, int last, float* x, const float* rest, const float* scale,
                  const float* shift, const float* slope, int threads) {
    Index rows = last ? items * n : items * channels, length = last ? channels : n;
#pragma omp parallel for num_threads(threads)
    for (Index row = 0; row < rows; row++) {
        float* at = x + row * length;
        const float* more = rest ? rest + row * length : nullptr;
        Index c = row % channels;
        if (more)
#pragma omp simd
            for (Index i = 0; i < length; i++)
                at[i] = activate(at[i] * scale[last ? i : c] + shift[last ? i : c] + more[i], slope[last ? i : c]);
        else
#pragma omp simd
            for (Index i = 0; i < length; i++)
                at[i] = activate(at[i] * scale[last ? i : c] + shift[last ? i : c], slope[last ? i : c]);
    }
}

// Mean and (biased) variance of each channel of (items, channels, n).
void avkit_moments(Index items, Index channels, Index n, const float* x, float* mean, float* variance, int threads) {
#pragma omp parallel for num_threads(threads)
    for (Index c = 0; c < channels; c++) {
        double middle = 0, squares = 0;
        for (Index b = 0; b < items; b++) middle += sum(x + (b * channels + c) * n, n) / (double(items) * n);
        mean[c] = static_cast<float>(middle);
        for (Index b = 0; b < items; b++) squares += squared_deviations(x + (b * channels + c) * n, n, mean[c]);
        variance[c] = static_cast<float>(squares / (double(items) * n));
    }
}

// out = value_gate * (d * s_v + o_v) + key_gate * relu(d * s_k + o_k), d = a - centre: a (items, channels, frames, freqs),
// gates (items, channels, frames), centre (channels), `maps` (4, channels): s_v, o_v, s_k, o_k.
void avkit_fuse_forward(Index items, Index channels, Index frames, Index freqs, const float* a, const float* value_gate,
                        const float* key_gate, const float* maps, const float* centre, float* out, int threads) {
#pragma omp parallel for num_threads(threads)
    for (Index row = 0; row < items * channels * frames; row++) {
        Index c = row / frames % channels;
        const float *map = maps + c, *in = a + row * freqs;
        float s_v = map[0] * value_gate[row], o_v = map[channels] * value_gate[row];
        float s_k = map[2 * channels], o_k = map[3 * channels], gate = key_gate[row], middle = centre[c];
        float* to = out + row * freqs;
#pragma omp simd
        for (Index f = 0; f < freqs; f++) {
            float d = in[f] - middle;
            to[f] = d * s_v + o_v + gate * rectify(d * s_k + o_k);
        }
    }
}

void avkit_fuse_backward(Index items, Index channels, Index frames, Index freqs, const float* a, const float* value_gate,
                         const float* key_gate, const float* maps, const float* centre, const float* grad, float* da,
                         float* dvalue_gate, float* dkey_gate, float* dmaps, int threads) {
#pragma omp parallel for num_threads(threads)
    for (Index c = 0; c < channels; c++) {
        float s_v = maps[c], o_v = maps[channels + c], s_k = maps[2 * channels + c], o_k = maps[3 * channels + c];
        float middle = centre[c];
        double sums[4] = {};
        for (Index b = 0; b < items; b++)
            for (Index row = (b * channels + c) * frames; row < (b * channels + c + 1) * frames; row++) {
                const float *in = a + row * freqs, *g = grad + row * freqs;
                float gate_v = value_gate[row], gate_k = key_gate[row], *to = da + row * freqs;
                float shift_v = 0, scale_v = 0, shift_k = 0, scale_k = 0;  // sums of g and of g * d, where each path is open
#pragma omp simd reduction(+ : shift_v, scale_v, shift_k, scale_k)
                for (Index f = 0; f < freqs; f++) {
                    float d = in[f] - middle, open = d * s_k + o_k > 0 ? g[f] : 0.f;
                    to[f] = g[f] * (gate_v * s_v) + open * (gate_k * s_k);
                    shift_v += g[f], scale_v += g[f] * d;
                    shift_k += open, scale_k += open * d;
                }
                dvalue_gate[row] = scale_v * s_v + shift_v * o_v;
                dkey_gate[row] = scale_k * s_k + shift_k * o_k;
                sums[0] += scale_v * gate_v, sums[1] += shift_v * gate_v;
                sums[2] += scale_k * gate_k, sums[3] += shift_k * gate_k;
            }
        for (int i = 0; i < 4; i++) dmaps[i * channels + c] = static_cast<float>(sums[i]);
    }
}

// z = relu(mask) * encoded as complex numbers: mask and out (items, sources, 2, n), encoded (items, 2, n).
void avkit_mask_forward(Index items, Index sources, Index n, const float* mask, const float* encoded, float* out,
                        int threads) {
#pragma omp parallel for num_threads(threads) collapse(2)
    for (Index p = 0; p < items * sources; p++)
        for (Index start = 0; start < n; start += BLOCK) {
            const float *m_r = mask + p * 2 * n, *m_i = m_r + n, *e_r = encoded + p / sources * 2 * n, *e_i = e_r + n;
            float *z_r = out + p * 2 * n, *z_i = z_r + n;
#pragma omp simd
            for (Index i = start; i < std::min(n, start + BLOCK); i++) {
                float real = rectify(m_r[i]), imaginary = rectify(m_i[i]);
                z_r[i] = e_r[i] * real - e_i[i] * imaginary;
                z_i[i] = e_r[i] * imaginary + e_i[i] * real;
            }
        }
}

void avkit_mask_backward(Index items, Index sources, Index n, const float* mask, const float* encoded, const float* grad,
                         float* dmask, float* dencoded, int threads) {
    std::memset(dencoded, 0, sizeof(float) * items * 2 * n);
#pragma omp parallel for num_threads(threads) collapse(2)
    for (Index b = 0; b < items; b++)
        for (Index start = 0; start < n; start += BLOCK)
            for (Index p = b * sources; p < (b + 1) * sources; p++) {
                const float *m_r = mask + p * 2 * n, *m_i = m_r + n, *e_r = encoded + b * 2 * n, *e_i = e_r + n;
                const float *g_r = grad + p * 2 * n, *g_i = g_r + n;
                float *dm_r = dmask + p * 2 * n, *dm_i = dm_r + n, *de_r = dencoded + b * 2 * n, *de_i = de_r + n;
#pragma omp simd
                for (Index i = start; i < std::min(n, start + BLOCK); i++) {
                    float real = rectify(m_r[i]), imaginary = rectify(m_i[i]);
                    dm_r[i] = m_r[i] > 0 ? g_r[i] * e_r[i] + g_i[i] * e_i[i] : 0.f;
                    dm_i[i] = m_i[i] > 0 ? g_i[i] * e_r[i] - g_r[i] * e_i[i] : 0.f;
                    de_r[i] += g_r[i] * real + g_i[i] * imaginary;
                    de_i[i] += g_i[i] * real - g_r[i] * imaginary;
                }
            }
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

}  // extern "C"
