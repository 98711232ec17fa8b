// Cross-entropy of upsampled logits and its gradient, one row of pixels at a time; compiled_cross_entropy.py calls it.
//
// B images, K classes, h x w the size of the logits, H x W that of the labels. A row of pixels lies between two rows of logits,
// and a pixel between two of their columns: each has a lower neighbour and a share of the upper one. What belongs to a pixel are
// K numbers side by side, in the first cache from upsampling to gradient.

#include <algorithm>
#include <atomic>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <thread>
#include <vector>

namespace {

// Numbers that are computed at once; GCC and Clang make of them what the processor has. Classes are padded to a multiple.
constexpr int64_t kLanes = 16;
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t Places __attribute__((vector_size(kLanes * sizeof(int32_t))));
typedef uint32_t Bits __attribute__((vector_size(kLanes * sizeof(uint32_t))));

constexpr Places kOrder = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

constexpr uint8_t kUnlabelled = 255;
constexpr int64_t kGroup = 8;  // pixels between the same two columns of logits that are looked at together, at most

struct Axis {            // how one direction is upsampled
  int64_t size;          // of the logits
  int64_t wanted;        // of the labels
  const int32_t* lower;  // [wanted], rising
  const float* share;    // [wanted] of the upper neighbour, 0..1
  int64_t upper(int64_t i) const { return std::min<int64_t>(lower[i] + 1, size - 1); }
};

struct Problem {
  const float* logits;  // [B, K, h, w], any strides
  const int64_t* strides;
  const uint8_t* labels;  // [B, H, W]
  int64_t batch, classes;
  Axis down, across;
  float smoothing, weight;  // the weight of a labelled pixel: 1 / their number
  double* losses;           // [B, H] sums of each row of pixels, not weighted
  uint8_t* predictions;     // [B, H, W]
  float* gradient;          // [B, K, h, w], or null
};

// exp(x) of x <= 0 to about two units in the last place, NaN of NaN: 2^n times the series of exp(r), |r| <= ln(2) / 2.
inline Lanes exponential(Lanes x) {
  constexpr float kNothing = -60.0f;    // what lies below is nothing beside 1, and its products would be slow, denormal numbers
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: what is added to it is rounded to a whole number
  const Lanes shifted = x * 1.44269504f + kRound, n = shifted - kRound;
  const Lanes r = (x - n * 0.693145752f) - n * 1.42860677e-6f;  // ln(2) in two parts
  Lanes series = r * (1.0f / 5040) + 1.0f / 720;
  series = series * r + 1.0f / 120;
  series = series * r + 1.0f / 24;
  series = series * r + 1.0f / 6;
  series = series * r + 0.5f;
  series = series * r + 1.0f;
  series = series * r + 1.0f;
  const Bits power = ((Bits)shifted + 127) << 23;  // a cast of lanes keeps their bits
  return x < kNothing ? Lanes{} : series * (Lanes)power;
}

// Labelled pixels between the same two columns of logits.
struct Group {
  int64_t size = 0;
  uint8_t targets[kGroup];
  float shares[kGroup];  // of the right column
  float totals[kGroup];  // sums of exponentials
};

// What one thread holds: rows of [w, K] numbers, K padded.
class Worker {
 public:
  explicit Worker(const Problem& problem)
      : p_(problem),
        width_((p_.classes + kLanes - 1) / kLanes),
        line_(p_.across.size * width_),
        line_gradient_(line_.size()),
        values_(kGroup * width_),
        ignored_(width_) {
    for (int slot = 0; slot < 2; ++slot) {
      rows_[slot].assign(line_.size(), Lanes{} - FLT_MAX);
      sums_[slot].assign(line_.size(), Lanes{});
    }
  }

  // Everything that rows first..last-1 of the logits' gradient need. A row of pixels counts where its lower neighbour does.
  void band(int64_t image, int64_t first, int64_t last) {
    held_[0] = held_[1] = summed_[0] = summed_[1] = -1;
    for (int64_t y = 0; y < p_.down.wanted; ++y) {
      const int64_t above = p_.down.lower[y], below = p_.down.upper(y);
      const bool counts = above >= first && above < last;
      if (!counts && (p_.gradient == nullptr || above >= last || below < first)) continue;
      const float share = p_.down.share[y];
      const Lanes *a = row(image, above), *b = row(image, below);
      for (size_t i = 0; i < line_.size(); ++i) line_[i] = (1 - share) * a[i] + share * b[i];
      const double loss = pixels(image * p_.down.wanted + y, counts);
      if (counts) p_.losses[image * p_.down.wanted + y] = loss;
      if (p_.gradient == nullptr) continue;
      // Both of a clamped row are the same one: the shares add up.
      if (above >= first) pour(image, above, 1 - share);
      if (below < last) pour(image, below, share);
      std::fill(line_gradient_.begin(), line_gradient_.end(), Lanes{});
    }
    for (int slot = 0; slot < 2; ++slot) write(image, slot);
  }

 private:
  const Lanes* row(int64_t image, int64_t index) {
    const int slot = index % 2;
    if (held_[slot] != index) {
      const int64_t* strides = p_.strides;
      const float* source = p_.logits + image * strides[0] + index * strides[2];
      for (int64_t x = 0; x < p_.across.size; ++x) {
        float* target = reinterpret_cast<float*>(&rows_[slot][x * width_]);
        for (int64_t k = 0; k < p_.classes; ++k) target[k] = source[k * strides[1] + x * strides[3]];
      }
      held_[slot] = index;
    }
    return rows_[slot].data();
  }

  // Loss of a row of pixels, their predictions, and the gradient at the columns of the logits.
  double pixels(int64_t y, bool counts) {
    const int64_t start = y * p_.across.wanted;
    double loss = 0;
    for (int64_t x = 0; x < p_.across.wanted;) {
      const int64_t left = p_.across.lower[x], right = p_.across.upper(x), last = std::min(x + kGroup, p_.across.wanted);
      Group group;
      for (; x < last && p_.across.lower[x] == left; ++x) {
        Lanes* values = &values_[group.size * width_];
        const float share = p_.across.share[x];
        const float highest = upsample(&line_[left * width_], &line_[right * width_], share, values);
        if (counts) p_.predictions[start + x] = prediction_;
        if (p_.labels[start + x] == kUnlabelled) continue;
        group.targets[group.size] = p_.labels[start + x];
        group.shares[group.size] = share;
        loss += exponentials(values, highest, p_.labels[start + x], group.totals[group.size]);
        ++group.size;
      }
      if (p_.gradient != nullptr && group.size > 0) add(left, right, group);
    }
    return loss;
  }

  // The values of a pixel, the highest of them and, as the prediction, its class: the first of equals.
  float upsample(const Lanes* a, const Lanes* b, float share, Lanes* values) {
    Lanes highest = Lanes{} - FLT_MAX;
    Places chunk{};
    for (int32_t k = 0; k < width_; ++k) {
      values[k] = (1 - share) * a[k] + share * b[k];
      const Places higher = values[k] > highest;
      highest = higher ? values[k] : highest;
      chunk = higher ? Places{} + k : chunk;
    }
    float top = highest[0];
    for (int64_t i = 1; i < kLanes; ++i) top = highest[i] > top ? highest[i] : top;
    const Places place = highest == top ? chunk * static_cast<int32_t>(kLanes) + kOrder : Places{} + INT32_MAX;
    int32_t best = 0;  // where all are NaN
    for (int64_t i = 0; i < kLanes; ++i) best = i == 0 || place[i] < best ? place[i] : best;
    prediction_ = static_cast<uint8_t>(best);
    return top;
  }

  // Loss of a pixel; its values become exponentials.
  double exponentials(Lanes* values, float highest, uint8_t target, float& total) {
    const float* each = reinterpret_cast<const float*>(values);
    float of_target = (1 - p_.smoothing) * each[target];
    if (p_.smoothing > 0)
      for (int64_t k = 0; k < p_.classes; ++k) of_target += p_.smoothing / p_.classes * each[k];
    Lanes totals{};
    for (int64_t k = 0; k < width_; ++k) totals += values[k] = exponential(values[k] - highest);
    total = 0;
    for (int64_t i = 0; i < kLanes; ++i) total += totals[i];
    return std::log(total) + highest - of_target;
  }

  // Adds the gradients of pixels, probabilities less smoothed targets, to the two columns between which they lie.
  void add(int64_t left, int64_t right, const Group& group) {
    const float even = p_.smoothing / p_.classes * p_.weight, one = (1 - p_.smoothing) * p_.weight;
    Lanes* a = &line_gradient_[left * width_];
    Lanes* b = right == left ? ignored_.data() : a + width_;  // at an edge the share is 0
    float to_a[kGroup], to_b[kGroup], even_a = 0, even_b = 0;
    for (int64_t i = 0; i < group.size; ++i) {
      const float share = group.shares[i], scale = p_.weight / group.totals[i];
      to_a[i] = (1 - share) * scale;
      to_b[i] = share * scale;
      even_a += (1 - share) * even;
      even_b += share * even;
    }
    for (int64_t k = 0; k < width_; ++k) {
      Lanes sum_a = a[k] - even_a, sum_b = b[k] - even_b;
      const Lanes* values = &values_[k];
      for (int64_t i = 0; i < group.size; ++i, values += width_) {
        sum_a += *values * to_a[i];
        sum_b += *values * to_b[i];
      }
      a[k] = sum_a;
      b[k] = sum_b;
    }
    for (int64_t i = 0; i < group.size; ++i) {
      reinterpret_cast<float*>(a)[group.targets[i]] -= (1 - group.shares[i]) * one;
      reinterpret_cast<float*>(b)[group.targets[i]] -= group.shares[i] * one;
    }
  }

  void pour(int64_t image, int64_t index, float share) {
    const int slot = index % 2;
    if (summed_[slot] != index) {
      write(image, slot);
      summed_[slot] = index;
    }
    Lanes* sums = sums_[slot].data();
    for (size_t i = 0; i < line_.size(); ++i) sums[i] += share * line_gradient_[i];
  }

  // A row of the gradient that no further row of pixels adds to, from [w, K] to [K, h, w].
  void write(int64_t image, int slot) {
    if (summed_[slot] < 0) return;
    const int64_t h = p_.down.size, w = p_.across.size;
    float* target = p_.gradient + (image * p_.classes * h + summed_[slot]) * w;
    const float* source = reinterpret_cast<const float*>(sums_[slot].data());
    for (int64_t k = 0; k < p_.classes; ++k)
      for (int64_t x = 0; x < w; ++x) target[k * h * w + x] = source[x * width_ * kLanes + k];
    std::fill(sums_[slot].begin(), sums_[slot].end(), Lanes{});
  }

  const Problem& p_;
  const int64_t width_;  // of a pixel, in lanes
  std::vector<Lanes> line_, line_gradient_, values_, ignored_, rows_[2], sums_[2];
  int64_t held_[2], summed_[2];  // numbers of the rows that the slots have, or -1
  uint8_t prediction_ = 0;
};

}  // namespace

// Threads share the bands; the result is the same for any number of them. Returns 1 where memory ran out, which no thread may throw.
extern "C" int thaw_upsampled_cross_entropy(
    const float* logits, const int64_t* strides, const uint8_t* labels, const int64_t* shape, const int32_t* lower_down,
    const float* share_down, const int32_t* lower_across, const float* share_across, float smoothing, float weight,
    double* losses, uint8_t* predictions, float* gradient, int64_t threads) {
  const Problem problem{
      logits, strides, labels, shape[0], shape[1], {shape[2], shape[4], lower_down, share_down},
      {shape[3], shape[5], lower_across, share_across}, smoothing, weight, losses, predictions, gradient};
  const int64_t h = shape[2], bands = std::min(h, (2 * threads + shape[0] - 1) / shape[0]);
  std::atomic<int64_t> next{0};
  std::atomic<int> failed{0};
  const auto work = [&] {
    try {
      Worker worker(problem);
      for (int64_t i = next++; i < shape[0] * bands; i = next++) {
        const int64_t band = i % bands;
        worker.band(i / bands, band * h / bands, (band + 1) * h / bands);
      }
    } catch (const std::bad_alloc&) {
      failed = 1;
    }
  };
  std::vector<std::thread> others;
  try {
    for (int64_t i = 1; i < threads; ++i) others.emplace_back(work);
  } catch (const std::exception&) {
    // The system gives no more threads: those that there are do all of it.
  }
  work();
  for (std::thread& other : others) other.join();
  return failed;
}
