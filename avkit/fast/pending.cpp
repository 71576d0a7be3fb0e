// Inference with norms that are put off: a tensor is kept as it left its convolution ("raw") beside one scale and one shift
// per plane, which its reader applies while reading. So a norm costs no pass over memory of its own. A "plane" is one channel
// of one item, H x W numbers; one-dimensional signals have H = 1. Nothing here has a backward pass.

#include "depthwise.h"

namespace {

struct Moments {  // of each plane: its mean and the sum of its squared deviations
    double *mean, *squares;

    void take(Index p, const float* y, Index n) const {
        mean[p] = sum(y, n) / n;
        squares[p] = squared_deviations(y, n, static_cast<float>(mean[p]));
    }
};

// Averages over `count` stretches of n numbers, as adaptive average pooling has it.
struct Pool {
    std::vector<int32_t> from, size;
    int32_t shortest = 0, longest = 0;

    Pool(Index n, Index count) : from(count), size(count) {
        for (Index j = 0; j < count; j++) from[j] = j * n / count, size[j] = ((j + 1) * n + count - 1) / count - from[j];
        if (count) shortest = *std::min_element(size.begin(), size.end()), longest = *std::max_element(size.begin(), size.end());
    }
    // Of rows `width` apart, the sum of those of stretch r: in place where it is a single one, else in `total`.
    const float* sum(Index r, const float* x, Index width, float* total) const {
        x += from[r] * width;
        if (size[r] == 1) return x;
        std::fill_n(total, width, 0.f);
        for (int32_t k = 0; k < size[r]; k++)
#pragma omp simd
            for (Index i = 0; i < width; i++) total[i] += x[k * width + i];
        return total;
    }
    // Averages of x over the stretches, divided by `times` besides.
    void average(const float* x, int32_t times, float* __restrict out) const {
        Index count = from.size();
        const int32_t *at = from.data(), *sizes = size.data();
        std::fill_n(out, count, 0.f);
        for (int32_t k = 0; k < shortest; k++)
#pragma omp simd
            for (Index j = 0; j < count; j++) out[j] += x[at[j] + k];
        for (int32_t k = shortest; k < longest; k++)
            for (Index j = 0; j < count; j++) out[j] += k < sizes[j] ? x[at[j] + k] : 0.f;
#pragma omp simd
        for (Index j = 0; j < count; j++) out[j] /= sizes[j] * times;
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

// Scale and shift (items, channels) that a gLN comes to for the planes w * (gain * raw + offset), each `count` numbers whose raw
// ones have the moments given. `gain` and `offset` (items, channels), or null: 1 and 0; `w` (channels), or null: 1.
void avkit_settle(Index items, Index channels, double count, const double* mean, const double* squares, const float* gain,
                  const float* offset, const float* w, const float* gamma, const float* beta, float eps, float* scale,
                  float* shift) {
    for (Index b = 0; b < items; b++) {
        std::vector<double> gains(channels), offsets(channels), means(channels);
        double average = 0, total = 0;
        for (Index c = 0, p = b * channels; c < channels; c++, p++) {
            double weight = w ? w[c] : 1.;
            gains[c] = weight * (gain ? gain[p] : 1.f), offsets[c] = weight * (offset ? offset[p] : 0.f);
            means[c] = gains[c] * mean[p] + offsets[c];
            average += means[c] / channels;
        }
        for (Index c = 0, p = b * channels; c < channels; c++, p++) {
            double off = means[c] - average;
            total += gains[c] * gains[c] * squares[p] + count * off * off;
        }
        double rstd = 1 / __builtin_sqrt(total / (channels * count) + eps);
        for (Index c = 0, p = b * channels; c < channels; c++, p++) {
            scale[p] = static_cast<float>(gains[c] * rstd * gamma[c]);
            shift[p] = static_cast<float>((offsets[c] - average) * rstd * gamma[c] + beta[c]);
        }
    }
}

// y = depthwise convolution of activation(scale * x + shift), zeros around it: x (items, channels, height, width) -> y (items,
// channels, out_height, out_width), y's moments, and y averaged over (rows, columns) stretches: `average`. `scale` and `shift`
// (items, channels), `bias` and `average` may be null; y may be x where sizes stay.
int avkit_pending_conv(Index items, Index channels, Index height, Index width, Index out_height, Index out_width, int kh,
                       int kw, int stride, int pad_top, int pad_left, Index rows, Index columns, const float* x,
                       const float* scale, const float* shift, float slope, const float* w, const float* bias, float* y,
                       float* average, double* mean, double* squares, int threads) {
    Conv s{height, width, out_height, out_width, stride, pad_top, pad_left};
    Index in = height * width, out = out_height * out_width;
    Pool down(out_height, average ? rows : 0), along(out_width, average ? columns : 0);
    return !dispatch(kh, kw, stride, [&](auto op) {
        using Op = decltype(op);
#pragma omp parallel num_threads(threads)
        {
            std::vector<float> padded(Op::room(s)), total(out_width);
#pragma omp for
            for (Index p = 0; p < items * channels; p++) {
                Index c = p % channels;
                float gain = scale ? scale[p] : 1.f, offset = scale ? shift[p] : 0.f, *to = y + p * out;
                Op::fill(s, x + p * in, padded.data(), [=](float z) { return activate(z * gain + offset, slope); });
                Op::convolve(s, padded.data(), w + c * kh * kw, bias ? bias[c] : 0.f, to);
                Moments{mean, squares}.take(p, to, out);
                for (size_t r = 0; r < down.from.size(); r++)
                    along.average(down.sum(r, to, out_width, total.data()), down.size[r],
                                  average + (p * rows + r) * columns);
            }
        }
    });
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

// IntraA and, where there are lips, InterA-M behind it, in place:
//
//   f = (scale * x + shift) * sigmoid(gate_scale * top + gate_shift) + (more_scale * top + more_shift)
//   f = f * (1 + sigmoid(lips_scale * lips + lips_shift))
//
// x (items, channels, n), top (items, channels, coarse) read at `places` (n), lips (items, channels, frames) or null read at
// `frames_at` (n); `maps` (8, or 6 without lips; items, channels) holds the scales and shifts in the order above. x becomes f,
// or with `taps` f's depthwise convolution, whose moments are taken.
int avkit_pending_gates(Index items, Index channels, Index n, Index coarse, Index frames, int taps, float* x,
                        const float* top, const float* lips, const int32_t* places, const int32_t* frames_at,
                        const float* const* maps, const float* w, double* mean, double* squares, int threads) {
    Conv s{1, n, 1, n, 1, 0, taps / 2};
    Nearest near(places, n, coarse), near_lips(lips ? frames_at : places, n, lips ? frames : coarse);
    return !dispatch(taps ? 1 : 0, taps, 1, [&](auto op) {
        using Op = decltype(op);
#pragma omp parallel num_threads(threads)
        {
            std::vector<float> padded(Op::room(s)), gates(coarse), shifts(coarse), louder(frames);
            std::vector<float> gate_row(n + LANES), shift_row(n + LANES), lip_row(n + LANES);
#pragma omp for
            for (Index p = 0; p < items * channels; p++) {
                const float *global = top + p * coarse, *gate = gate_row.data(), *more = shift_row.data();
                float scale = maps[0][p], shift = maps[1][p], *row = x + p * n;
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
                for (Index i = 0; i < n; i++) row[i] = row[i] * gate[i] + more[i];
                if (lips) {
                    for (Index j = 0; j < frames; j++)
                        louder[j] = 1.f + sigmoid(lips[p * frames + j] * maps[6][p] + maps[7][p]);
                    near_lips.spread(louder.data(), lip_row.data());
                    const float* times = lip_row.data();
#pragma omp simd
                    for (Index i = 0; i < n; i++) row[i] *= times[i];
                }
                if (!taps) continue;
                Op::fill(s, row, padded.data());
                Op::convolve(s, padded.data(), w + p % channels * taps, 0.f, row);
                Moments{mean, squares}.take(p, row, n);
            }
        }
    });
}

// In place: x = (scale * x + shift) * sigmoid(gate) + more (+ rest_scale * rest + rest_shift): x (items, channels, height,
// width), `rest` too, or null; gate and more (items, channels, coarse_height, coarse_width), pending too, read at `rows`
// (height) and `columns` (width); `maps` (8 or 6, items, channels): scale and shift of x, gate, more and rest.
void avkit_pending_merge(Index items, Index channels, Index height, Index width, Index coarse_height, Index coarse_width,
                         float* x, const float* gate, const float* more, const float* rest, const int32_t* rows,
                         const int32_t* columns, const float* const* maps, int threads) {
    Nearest near(columns, width, coarse_width);
    Index fine = height * width, coarse = coarse_height * coarse_width;
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> gates(coarse_width), shifts(coarse_width), gate_row(width + LANES), shift_row(width + LANES);
#pragma omp for
        for (Index p = 0; p < items * channels; p++) {
            float scale = maps[0][p], shift = maps[1][p];
            float gate_scale = maps[2][p], gate_shift = maps[3][p], more_scale = maps[4][p], more_shift = maps[5][p];
            float rest_scale = rest ? maps[6][p] : 0.f, rest_shift = rest ? maps[7][p] : 0.f;
            for (Index h = 0; h < height; h++) {
                if (h == 0 || rows[h] != rows[h - 1]) {
                    const float *g = gate + p * coarse + rows[h] * coarse_width, *e = more + (g - gate);
#pragma omp simd
                    for (Index j = 0; j < coarse_width; j++) {
                        float value = sigmoid(g[j] * gate_scale + gate_shift);
                        gates[j] = value * scale;
                        shifts[j] = value * shift + e[j] * more_scale + more_shift + rest_shift;
                    }
                    near.spread(gates.data(), gate_row.data());
                    near.spread(shifts.data(), shift_row.data());
                }
                const float *open = gate_row.data(), *added = shift_row.data();
                const float* also = rest ? rest + p * fine + h * width : nullptr;
                float* row = x + p * fine + h * width;
                if (also)
#pragma omp simd
                    for (Index i = 0; i < width; i++) row[i] = row[i] * open[i] + added[i] + also[i] * rest_scale;
                else
#pragma omp simd
                    for (Index i = 0; i < width; i++) row[i] = row[i] * open[i] + added[i];
            }
        }
    }
}

}  // extern "C"
