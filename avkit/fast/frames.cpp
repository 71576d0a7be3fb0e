// Activation + norm over one frame's channels and frequencies, with a gain for each: what stands behind every 1x1 convolution
// in RTFS-Net's attention over time. Groups of `width` channels (heads) are normalised apart.
//
// x (items, channels, frames, freqs); group g holds channels first + g * width ...; slope (groups), gamma and beta (groups,
// width, freqs). The result lies as tokens (items, groups, frames, width * freqs), or (`tokens` 0) as x does, plus `rest`.

#include "common.h"

namespace {

struct Frames {
    Index items, channels, first, groups, width, frames, freqs;
    int tokens;

    Index size() const { return width * freqs; }
    Index count() const { return items * groups * frames; }
    Index group(Index p) const { return p / frames % groups; }
    Index into(Index p, Index w) const {  // where channel w of frame p of x begins
        Index b = p / frames / groups, c = first + group(p) * width + w;
        return ((b * channels + c) * frames + p % frames) * freqs;
    }
    Index out(Index p, Index w) const {
        if (tokens) return p * size() + w * freqs;
        Index b = p / frames / groups, c = group(p) * width + w;
        return ((b * groups * width + c) * frames + p % frames) * freqs;
    }

    // hat: the frame behind the activation, normalised without gain and bias; returns its mean and 1 / deviation.
    std::pair<float, float> normalise(const float* x, Index p, float slope, float eps, float* hat) const {
        float total = 0, squares = 0;
        for (Index w = 0; w < width; w++) {
            const float* row = x + into(p, w);
            float* to = hat + w * freqs;
#pragma omp simd reduction(+ : total)
            for (Index f = 0; f < freqs; f++) {
                to[f] = activate(row[f], slope);
                total += to[f];
            }
        }
        float mean = total / size();
#pragma omp simd reduction(+ : squares)
        for (Index i = 0; i < size(); i++) {
            hat[i] -= mean;
            squares += hat[i] * hat[i];
        }
        float rstd = 1.f / __builtin_sqrtf(squares / size() + eps);
#pragma omp simd
        for (Index i = 0; i < size(); i++) hat[i] *= rstd;
        return {mean, rstd};
    }
};

}  // namespace

extern "C" {

void avkit_frames_forward(Index items, Index channels, Index first, Index groups, Index width, Index frames, Index freqs,
                          int tokens, const float* x, const float* slope, const float* gamma, const float* beta, float eps,
                          const float* rest, float* out, int threads) {
    Frames s{items, channels, first, groups, width, frames, freqs, tokens};
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> hat(s.size());
#pragma omp for
        for (Index p = 0; p < s.count(); p++) {
            Index g = s.group(p);
            s.normalise(x, p, slope[g], eps, hat.data());
            for (Index w = 0; w < width; w++) {
                const float *gain = gamma + (g * width + w) * freqs, *shift = beta + (g * width + w) * freqs;
                const float *from = hat.data() + w * freqs, *more = rest ? rest + s.out(p, w) : nullptr;
                float* to = out + s.out(p, w);
#pragma omp simd
                for (Index f = 0; f < freqs; f++) to[f] = from[f] * gain[f] + shift[f];
                if (more)
#pragma omp simd
                    for (Index f = 0; f < freqs; f++) to[f] += more[f];
            }
        }
    }
}

// dx is written where the groups lie in x; dslope (groups) and dgamma, dbeta as slope, gamma, beta.
void avkit_frames_backward(Index items, Index channels, Index first, Index groups, Index width, Index frames, Index freqs,
                           int tokens, const float* x, const float* slope, const float* gamma, float eps, const float* grad,
                           float* dx, float* dslope, float* dgamma, float* dbeta, int threads) {
    Frames s{items, channels, first, groups, width, frames, freqs, tokens};
    std::vector<double> below(s.count());
    std::vector<float> means(s.count()), rstds(s.count());
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> hat(s.size());
#pragma omp for
        for (Index p = 0; p < s.count(); p++) {
            Index g = s.group(p);
            auto [mean, rstd] = s.normalise(x, p, slope[g], eps, hat.data());
            means[p] = mean, rstds[p] = rstd;
            float m1 = 0, m2 = 0, total = 0;
            for (Index w = 0; w < width; w++) {
                const float *d = grad + s.out(p, w), *gain = gamma + (g * width + w) * freqs, *h = hat.data() + w * freqs;
#pragma omp simd reduction(+ : m1, m2)
                for (Index f = 0; f < freqs; f++) m1 += d[f] * gain[f], m2 += d[f] * gain[f] * h[f];
            }
            m1 /= s.size(), m2 /= s.size();
            for (Index w = 0; w < width; w++) {
                const float *d = grad + s.out(p, w), *gain = gamma + (g * width + w) * freqs, *h = hat.data() + w * freqs;
                const float* row = x + s.into(p, w);
                float *to = dx + s.into(p, w), a = slope[g];
#pragma omp simd reduction(+ : total)
                for (Index f = 0; f < freqs; f++) {
                    float through = (d[f] * gain[f] - m1 - h[f] * m2) * rstd;
                    to[f] = (row[f] > 0 ? 1.f : a) * through;
                    total += (row[f] >= 0 ? 0.f : row[f]) * through;
                }
            }
            below[p] = total;
        }
        std::vector<double> gains(freqs), shifts(freqs);
#pragma omp for
        for (Index c = 0; c < groups * width; c++) {
            Index g = c / width, w = c % width;
            std::fill(gains.begin(), gains.end(), 0.), std::fill(shifts.begin(), shifts.end(), 0.);
            for (Index b = 0; b < items; b++)
                for (Index t = 0; t < frames; t++) {
                    Index p = (b * groups + g) * frames + t;
                    const float *d = grad + s.out(p, w), *row = x + s.into(p, w);
                    for (Index f = 0; f < freqs; f++) {
                        gains[f] += d[f] * ((activate(row[f], slope[g]) - means[p]) * rstds[p]);
                        shifts[f] += d[f];
                    }
                }
            for (Index f = 0; f < freqs; f++) {
                dgamma[c * freqs + f] = static_cast<float>(gains[f]);
                dbeta[c * freqs + f] = static_cast<float>(shifts[f]);
            }
        }
    }
    for (Index g = 0; g < groups; g++) {
        double total = 0;
        for (Index p = 0; p < s.count(); p++) total += s.group(p) == g ? below[p] : 0.;
        dslope[g] = static_cast<float>(total);
    }
}

}  // extern "C"
