// What a scan along one axis needs: normalised windows, their overlap and the SRU's recurrence, forward and backward.

#include "common.h"

namespace {

struct Scanned {  // one axis of (items, channels, height, width) as rows of N positions
    Index channels, n, other, rows, steps, item, plane, along, across, together;

    Scanned(Index items, Index channels, Index height, Index width, int axis, Index window)
        : channels(channels), n(axis == 3 ? width : height), other(axis == 3 ? height : width), rows(items * other),
          steps(n - window + 1), item(channels * height * width), plane(height * width), along(axis == 3 ? 1 : width),
          across(axis == 3 ? width : 1), together(axis == 3 ? 1 : LANES) {}

    Index lines() const { return channels * n; }
    Index at(Index row, Index c, Index position) const {
        return row / other * item + c * plane + row % other * across + position * along;
    }

    // Rows are worked on in blocks; down the height, neighbours in memory belong to different rows, so a block copies
    // several rows at once: `gather` to lie one after the other, (channels, n) each, `scatter` back.
    Index blocks() const { return rows / other * ((other + together - 1) / together); }
    Index begin(Index block) const {
        Index each = (other + together - 1) / together;
        return block / each * other + block % each * together;
    }
    Index count(Index block) const { return std::min(together, other - begin(block) % other); }
    Index room() const { return together * lines(); }

    void gather(const float* x, Index block, float* __restrict to) const {
        Index row = begin(block), many = count(block);
        for (Index c = 0; c < channels; c++)
            for (Index i = 0; i < n; i++) {
                const float* from = x + at(row, c, i);
                for (Index r = 0; r < many; r++) to[r * lines() + c * n + i] = from[r * across];
            }
    }
    void scatter(const float* __restrict from, Index block, float* x) const {
        Index row = begin(block), many = count(block);
        for (Index c = 0; c < channels; c++)
            for (Index i = 0; i < n; i++) {
                float* to = x + at(row, c, i);
                for (Index r = 0; r < many; r++) to[r * across] = from[r * lines() + c * n + i];
            }
    }

    // Windows (steps, rows, channels * window): cut from a row's (channels, n), or added to it where they overlap.
    void cut(const float* tile, Index row, Index window, float* windows) const {
        for (Index i = 0; i < steps; i++) {
            float* to = windows + (i * rows + row) * channels * window;
            for (Index c = 0; c < channels; c++)
                for (Index k = 0; k < window; k++) to[c * window + k] = tile[c * n + i + k];
        }
    }
    void add(const float* windows, Index row, Index window, float* tile) const {
        for (Index i = 0; i < steps; i++) {
            const float* from = windows + (i * rows + row) * channels * window;
            for (Index c = 0; c < channels; c++)
                for (Index k = 0; k < window; k++) tile[c * n + i + k] += from[c * window + k];
        }
    }

    // In place, hat (channels, n): each point of the row over its channels, without gain and bias; rstd (n).
    void normalise(float eps, float* __restrict hat, float* __restrict rstd) const {
        std::vector<float> mean(n, 0.f);
        float* middle = mean.data();
        for (Index c = 0; c < channels; c++)
#pragma omp simd
            for (Index i = 0; i < n; i++) middle[i] += hat[c * n + i] / channels;
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

// Around a scan along one axis of x (items, channels, height, width): `axis` 3 scans the width, 2 the height; N positions
// along it, M along the other. Normalise each point over its channels and cut windows with stride 1:
// out (N - window + 1, items * M, channels * window).
void avkit_windows_forward(Index items, Index channels, Index height, Index width, int axis, Index window, const float* x,
                           const float* gamma, const float* beta, float eps, float* out, int threads) {
    Scanned s(items, channels, height, width, axis, window);
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> hats(s.room()), rstd(s.n);
#pragma omp for
        for (Index block = 0; block < s.blocks(); block++) {
            s.gather(x, block, hats.data());
            for (Index r = 0; r < s.count(block); r++) {
                float* hat = hats.data() + r * s.lines();
                s.normalise(eps, hat, rstd.data());
                for (Index c = 0; c < channels; c++)
#pragma omp simd
                    for (Index n = 0; n < s.n; n++) hat[c * s.n + n] = hat[c * s.n + n] * gamma[c] + beta[c];
                s.cut(hat, s.begin(block) + r, window, out);
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
        std::vector<float> hats(s.room()), rstd(s.n), tile(s.lines()), first(s.n), second(s.n);
#pragma omp for
        for (Index block = 0; block < s.blocks(); block++) {
          s.gather(x, block, hats.data());
          for (Index r = 0; r < s.count(block); r++) {
            Index row = s.begin(block) + r;
            float* hat = hats.data() + r * s.lines();
            s.normalise(eps, hat, rstd.data());
            std::fill(tile.begin(), tile.end(), 0.f);
            s.add(grad, row, window, tile.data());
            std::fill(first.begin(), first.end(), 0.f);
            std::fill(second.begin(), second.end(), 0.f);
            for (Index c = 0; c < channels; c++) {
                float gain = gamma[c] / channels, weight = 0, offset = 0;
                const float *d = tile.data() + c * s.n, *h = hat + c * s.n;
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
                    float& h = hat[c * s.n + n];
                    h = (gamma[c] * tile[c * s.n + n] - first[n] - h * second[n]) * rstd[n];
                }
          }
          s.scatter(hats.data(), block, dx);
        }
    }
}

// Windows (N - window + 1, items * M, channels * window) added where they overlap, plus bias and `rest`: as x's shape.
void avkit_overlap_forward(Index items, Index channels, Index height, Index width, int axis, Index window,
                           const float* windows, const float* bias, const float* rest, float* out, int threads) {
    Scanned s(items, channels, height, width, axis, window);
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> tiles(s.room());
#pragma omp for
        for (Index block = 0; block < s.blocks(); block++) {
            s.gather(rest, block, tiles.data());
            for (Index r = 0; r < s.count(block); r++) {
                float* tile = tiles.data() + r * s.lines();
                for (Index c = 0; c < channels; c++)
                    for (Index n = 0; n < s.n; n++) tile[c * s.n + n] += bias[c];
                s.add(windows, s.begin(block) + r, window, tile);
            }
            s.scatter(tiles.data(), block, out);
        }
    }
}

void avkit_overlap_backward(Index items, Index channels, Index height, Index width, int axis, Index window,
                            const float* grad, float* dwindows, int threads) {
    Scanned s(items, channels, height, width, axis, window);
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> tiles(s.room());
#pragma omp for
        for (Index block = 0; block < s.blocks(); block++) {
            s.gather(grad, block, tiles.data());
            for (Index r = 0; r < s.count(block); r++)
                s.cut(tiles.data() + r * s.lines(), s.begin(block) + r, window, dwindows);
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
