// Inference with norms that are put off: a tensor is kept as it left its convolution ("raw") beside one scale and one shift
// per plane, which its reader applies while reading. So a norm costs no pass over memory of its own. Planes are channels of
// items along time, n numbers each. Nothing here has a backward pass.

#include "common.h"

namespace {

struct Moments {  // of each plane: its mean and the sum of its squared deviations
    double *mean, *squares;

    void take(Index p, const float* y, Index n) const {
        mean[p] = sum(y, n) / n;
        squares[p] = squared_deviations(y, n, static_cast<float>(mean[p]));
    }
};

// Scale and shift that a gLN comes to, for t = gain * raw + offset channel by channel, then normalised; `gain` may be null
// (1 and 0). Each plane holds `count` numbers with the moments given.
void settle(Index items, Index channels, double count, const Moments& of, const float* gain, const float* offset,
            const float* gamma, const float* beta, float eps, float* scale, float* shift) {
    for (Index b = 0; b < items; b++) {
        double average = 0, squares = 0;
        auto slope = [&](Index p) { return gain ? double(gain[p]) : 1.; };
        auto mean = [&](Index p) { return slope(p) * of.mean[p] + (gain ? offset[p] : 0.f); };
        for (Index p = b * channels; p < (b + 1) * channels; p++) average += mean(p) / channels;
        for (Index p = b * channels; p < (b + 1) * channels; p++) {
            double off = mean(p) - average;
            squares += slope(p) * slope(p) * of.squares[p] + count * off * off;
        }
        double rstd = 1 / __builtin_sqrt(squares / (channels * count) + eps);
        for (Index c = 0, p = b * channels; c < channels; c++, p++) {
            scale[p] = static_cast<float>(slope(p) * rstd * gamma[c]);
            shift[p] = static_cast<float>(((gain ? offset[p] : 0.f) - average) * rstd * gamma[c] + beta[c]);
        }
    }
}

// y[i] = bias + taps . padded[i * stride ...]
template <int K, int S>
void correlate(const float* __restrict padded, const float* w, float bias, Index n, float* __restrict y) {
#pragma omp simd
    for (Index i = 0; i < n; i++) {
        float value = bias;
        for (int k = 0; k < K; k++) value += w[k] * padded[i * S + k];
        y[i] = value;
    }
}

bool convolve(int taps, int stride, const float* padded, const float* w, float bias, Index n, float* y) {
    if (taps == 5 && stride == 1) return correlate<5, 1>(padded, w, bias, n, y), true;
    if (taps == 5 && stride == 2) return correlate<5, 2>(padded, w, bias, n, y), true;
    if (taps == 3 && stride == 1) return correlate<3, 1>(padded, w, bias, n, y), true;
    if (taps == 3 && stride == 2) return correlate<3, 2>(padded, w, bias, n, y), true;
    return false;
}

// Averages over `count` stretches of n numbers, as adaptive average pooling has it.
struct Pool {
    std::vector<int32_t> from, size;
    int32_t shortest = 0, longest = 0;

    Pool(Index n, Index count) : from(count), size(count) {
        for (Index j = 0; j < count; j++) from[j] = j * n / count, size[j] = ((j + 1) * n + count - 1) / count - from[j];
        if (count) shortest = *std::min_element(size.begin(), size.end()), longest = *std::max_element(size.begin(), size.end());
    }
    void average(const float* x, float* __restrict out) const {
        Index count = from.size();
        const int32_t *at = from.data(), *sizes = size.data();
        std::fill_n(out, count, 0.f);
        for (int32_t k = 0; k < shortest; k++)
#pragma omp simd
            for (Index j = 0; j < count; j++) out[j] += x[at[j] + k];
        for (int32_t k = shortest; k < longest; k++)
            for (Index j = 0; j < count; j++) out[j] += k < sizes[j] ? x[at[j] + k] : 0.f;
#pragma omp simd
        for (Index j = 0; j < count; j++) out[j] /= sizes[j];
    }
};

// Nearest-neighbour upsampling: fine position i reads coarse position places[i], which never falls.
struct Nearest {
    std::vector<Index> from;  // coarse position j is read at [from[j], from[j + 1])
    Index n;
    bool doubles = true;  // whether every i reads i / 2

    Nearest(const int32_t* places, Index n, Index coarse) : from(coarse + 1, n), n(n) {
        for (Index i = 0; i < n; i++) doubles = doubles && places[i] == i / 2;
        for (Index i = n; i-- > 0;) from[places[i]] = i;
        for (Index j = coarse; j-- > 0;) from[j] = std::min(from[j], from[j + 1]);
    }
    // `row` has room for LANES numbers more than are written.
    void spread(const float* values, float* __restrict row) const {
        if (doubles) {
#pragma omp simd
            for (Index j = 0; j < n / 2; j++) row[2 * j] = row[2 * j + 1] = values[j];
            if (n % 2) row[n - 1] = values[n / 2];
            return;
        }
        for (size_t j = 0; j + 1 < from.size(); j++) {
            Lanes lanes = Lanes{} + values[j];
            for (Index i = from[j]; i < from[j + 1]; i += LANES) store(row + i, lanes);
        }
    }
};

}  // namespace

extern "C" {

// Moments of each plane of x (planes, n); with `counts` (n), position i stands there counts[i] times.
void avkit_plane_moments(Index planes, Index n, const float* x, const float* counts, double* mean, double* squares,
                         int threads) {
    double total = 0;
    for (Index i = 0; counts && i < n; i++) total += counts[i];
#pragma omp parallel for num_threads(threads)
    for (Index p = 0; p < planes; p++) {
        const float* row = x + p * n;
        if (!counts) {
            Moments{mean, squares}.take(p, row, n);
            continue;
        }
        double first = 0, second = 0;
        for (Index i = 0; i < n; i++) first += double(counts[i]) * row[i];
        first /= total;
        for (Index i = 0; i < n; i++) second += counts[i] * (row[i] - first) * (row[i] - first);
        mean[p] = first, squares[p] = second;
    }
}

// See `settle`. For a one-tap convolution before the norm, `gain` and `offset` (items, channels) are those of what is
// convolved times `w` (channels), which may be null.
void avkit_settle(Index items, Index channels, double count, const double* mean, const double* squares, const float* gain,
                  const float* offset, const float* w, const float* gamma, const float* beta, float eps, float* scale,
                  float* shift) {
    std::vector<float> gains(items * channels, 1.f), offsets(items * channels, 0.f);
    for (Index p = 0; p < items * channels; p++) {
        float weight = w ? w[p % channels] : 1.f;
        gains[p] = weight * (gain ? gain[p] : 1.f), offsets[p] = weight * (gain ? offset[p] : 0.f);
    }
    Moments of{const_cast<double*>(mean), const_cast<double*>(squares)};
    settle(items, channels, count, of, gains.data(), offsets.data(), gamma, beta, eps, scale, shift);
}

// y = depthwise convolution of activation(scale * x + shift), zeros around it: x (items, channels, n) -> y (items, channels,
// out), y's moments, and y averaged over `pooled` stretches, `average` (items, channels, pooled). `scale` and `shift`
// (items, channels), `bias` and `average` may be null; y may be x where the stride is 1.
int avkit_pending_conv(Index items, Index channels, Index n, Index out, Index pooled, int taps, int stride, const float* x,
                       const float* scale, const float* shift, float slope, const float* w, const float* bias, float* y,
                       float* average, double* mean, double* squares, int threads) {
    int side = taps / 2, failed = 0;
    Pool stretches(out, average ? pooled : 0);
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> padded(n + 2 * taps, 0.f);
        float* middle = padded.data() + side;
#pragma omp for
        for (Index p = 0; p < items * channels; p++) {
            Index c = p % channels;
            const float* row = x + p * n;
            float gain = scale ? scale[p] : 1.f, offset = scale ? shift[p] : 0.f;
#pragma omp simd
            for (Index i = 0; i < n; i++) middle[i] = activate(row[i] * gain + offset, slope);
            if (!convolve(taps, stride, padded.data(), w + c * taps, bias ? bias[c] : 0.f, out, y + p * out)) failed = 1;
            Moments{mean, squares}.take(p, y + p * out, out);
            if (average) stretches.average(y + p * out, average + p * pooled);
        }
    }
    return failed;
}

// out = the sum over levels of scale * x + shift: each x (planes, n), scales and shifts (planes).
void avkit_pending_sum(Index planes, Index n, Index levels, const float* const* x, const float* const* scale,
                       const float* const* shift, float* out, int threads) {
#pragma omp parallel for num_threads(threads)
    for (Index p = 0; p < planes; p++)
        for (Index level = 0; level < levels; level++) {
            float gain = scale[level][p], offset = shift[level][p], *to = out + p * n;
            const float* row = x[level] + p * n;
#pragma omp simd
            for (Index i = 0; i < n; i++) to[i] = (level ? to[i] : 0.f) + (row[i] * gain + offset);
        }
}

// IntraA and, where there are lips, InterA-M behind it, in place or into a convolution's raw output.
//
//   f = (scale * x + shift) * sigmoid(gate_scale * top + gate_shift) + (shift_scale * top + shift_shift)
//   f = f * (1 + sigmoid(lips_scale * lips + lips_shift))
//
// x (items, channels, n), top (items, channels, coarse) read at `places` (n), lips (items, channels, frames) or null read at
// `frames_at` (n); `maps` (6 or 4, items, channels) holds the scales and shifts in the order above. With `taps`, y is f's
// depthwise convolution and its moments are taken; without (0), y is f. y may be x.
int avkit_pending_gates(Index items, Index channels, Index n, Index coarse, Index frames, int taps, const float* x,
                        const float* top, const float* lips, const int32_t* places, const int32_t* frames_at,
                        const float* const* maps, const float* w, float* y, double* mean, double* squares, int threads) {
    int failed = 0;
    Nearest near(places, n, coarse), near_lips(lips ? frames_at : places, n, lips ? frames : coarse);
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> padded(n + 2 * taps, 0.f), gates(coarse), shifts(coarse), louder(frames);
        std::vector<float> gate_row(n + LANES), shift_row(n + LANES), lip_row(n + LANES);
        float* middle = padded.data() + taps / 2;
#pragma omp for
        for (Index p = 0; p < items * channels; p++) {
            const float *row = x + p * n, *global = top + p * coarse, *gate = gate_row.data(), *more = shift_row.data();
            float scale = maps[0][p], shift = maps[1][p];
            float gate_scale = maps[2][p], gate_shift = maps[3][p], more_scale = maps[4][p], more_shift = maps[5][p];
#pragma omp simd
            for (Index j = 0; j < coarse; j++) {
                float open = sigmoid(global[j] * gate_scale + gate_shift);
                gates[j] = scale * open;
                shifts[j] = shift * open + global[j] * more_scale + more_shift;
            }
            near.spread(gates.data(), gate_row.data());
            near.spread(shifts.data(), shift_row.data());
#pragma omp simd
            for (Index i = 0; i < n; i++) middle[i] = row[i] * gate[i] + more[i];
            if (lips) {
                for (Index j = 0; j < frames; j++)
                    louder[j] = 1.f + sigmoid(lips[p * frames + j] * maps[6][p] + maps[7][p]);
                near_lips.spread(louder.data(), lip_row.data());
                const float* times = lip_row.data();
#pragma omp simd
                for (Index i = 0; i < n; i++) middle[i] *= times[i];
            }
            if (!taps) {
                std::memcpy(y + p * n, middle, sizeof(float) * n);
                continue;
            }
            if (!convolve(taps, 1, padded.data(), w + p % channels * taps, 0.f, n, y + p * n)) failed = 1;
            Moments{mean, squares}.take(p, y + p * n, n);
        }
    }
    return failed;
}

// In place: x = (scale * x + shift) * sigmoid(gate) + more, x (items, channels, n); gate and more (items, channels, coarse),
// pending too, read at `places` (n); `maps` (6, items, channels): scale and shift of x, gate and more.
void avkit_pending_merge(Index items, Index channels, Index n, Index coarse, float* x, const float* gate, const float* more,
                         const int32_t* places, const float* const* maps, int threads) {
    Nearest near(places, n, coarse);
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> gates(coarse), shifts(coarse), gate_row(n + LANES), shift_row(n + LANES);
#pragma omp for
        for (Index p = 0; p < items * channels; p++) {
            const float *g = gate + p * coarse, *e = more + p * coarse, *open = gate_row.data(), *added = shift_row.data();
            float scale = maps[0][p], shift = maps[1][p], *row = x + p * n;
            float gate_scale = maps[2][p], gate_shift = maps[3][p], more_scale = maps[4][p], more_shift = maps[5][p];
#pragma omp simd
            for (Index j = 0; j < coarse; j++) {
                float value = sigmoid(g[j] * gate_scale + gate_shift);
                gates[j] = value * scale;
                shifts[j] = value * shift + e[j] * more_scale + more_shift;
            }
            near.spread(gates.data(), gate_row.data());
            near.spread(shifts.data(), shift_row.data());
#pragma omp simd
            for (Index i = 0; i < n; i++) row[i] = row[i] * open[i] + added[i];
        }
    }
}

}  // extern "C"
