// Passes over a row of logits, a block of tokens at a time.
#pragma once

#include "floats.h"

namespace aph::APH_LEVEL {

constexpr int64_t kLogitBlock = 256;
constexpr float kWeightless = -87.33f;  // e^x is 0 below: see exponential()

struct Peak {
  float value;    // the largest logit
  int64_t token;  // the first that has it
  bool valid;     // a finite one, and no logit is NaN
};

APH_INLINE int64_t block_end(int64_t begin, int64_t width) {
  return begin + kLogitBlock < width ? begin + kLogitBlock : width;
}

APH_INLINE int64_t blocks_of(int64_t width) { return (width + kLogitBlock - 1) / kLogitBlock; }

// heights, if not null: the largest of each block; of a block with NaN any number.
APH_INLINE Peak find_peak(const float* logits, int64_t width, float* heights = nullptr) {
  const Floats infinity = all_floats(__builtin_inff()), one = all_floats(1.0f);
  Floats strange = zero();  // counts NaN and infinity, which are not below infinity
  Peak peak{-__builtin_inff(), 0, false};
  int64_t block = 0;
  for (int64_t begin = 0; begin < width; begin += kLogitBlock) {
    Floats highest = zero() - infinity;
    int64_t i = begin;
    const int64_t end = block_end(begin, width);
    for (; i + kLanes <= end; i += kLanes) {
      const Floats x = load(logits + i);
      highest = largest(x, highest);
      strange = strange + zero_where_below(x, infinity, one);
    }
    if (i < end) {
      const Floats x = within(load(logits + i, end - i), 0, static_cast<int>(end - i),
                              -__builtin_inff());
      highest = largest(x, highest);
      strange = strange + zero_where_below(x, infinity, one);
    }
    const float value = largest(highest);
    if (heights) heights[begin / kLogitBlock] = value;
    if (value > peak.value) {
      peak.value = value;
      block = begin;
    }
  }
  peak.valid = sum(strange) == 0.0f && peak.value > -__builtin_inff();
  if (peak.valid)
    for (peak.token = block; logits[peak.token] != peak.value;) ++peak.token;
  return peak;
}

// How many are above -infinity.
APH_INLINE int64_t count_possible(const float* logits, int64_t width) {
  int64_t total = 0;
  for (int64_t begin = 0; begin < width; begin += kLogitBlock) {
    int32_t count = 0;
    for (int64_t i = begin; i < block_end(begin, width); ++i)
      count += logits[i] > -__builtin_inff();
    total += count;
  }
  return total;
}

// e^(logits - peak) of a block, into `weights` if it is not null; and their sum.
APH_INLINE float weigh(const float* logits, int64_t count, float peak, float* weights) {
  const Floats shift = all_floats(peak);
  Floats total = zero();
  for_lanes(count, [&](int64_t i, auto lanes) {
    const Floats weight = exponential(lanes.get(logits + i) - shift);
    if (weights) lanes.put(weights + i, weight);
    const int64_t left = count - i;
    total = total + (left < kLanes ? within(weight, 0, static_cast<int>(left), 0.0f) : weight);
  });
  return sum(total);
}

// heights -> the sum of e^(logits - peak) of each block, in place.
APH_INLINE void weigh_blocks(const float* logits, int64_t width, float peak, float* heights) {
  for (int64_t begin = 0, block = 0; begin < width; begin += kLogitBlock, ++block)
    heights[block] = heights[block] - peak < kWeightless
                         ? 0.0f
                         : weigh(logits + begin, block_end(begin, width) - begin, peak, nullptr);
}

// take(i, place) for each logit, place being how many before it are at least `floor`; returns their
// number. What is taken in vain is overwritten: there are no branches to guess. Blocks whose height
// (see find_peak) is below the floor are left out.
template <typename Take>
APH_INLINE int64_t collect_from(const float* logits, int64_t width, float floor,
                                const float* heights, const Take& take) {
  alignas(64) uint8_t wanted[kLogitBlock];
  int64_t count = 0;
  for (int64_t begin = 0, block = 0; begin < width; begin += kLogitBlock, ++block) {
    if (heights[block] < floor) continue;
    const int64_t length = block_end(begin, width) - begin;
    for (int64_t i = 0; i < length; ++i) wanted[i] = logits[begin + i] >= floor;
    for (int64_t i = 0; i < length; ++i) {
      take(begin + i, count);
      count += wanted[i];
    }
  }
  return count;
}

// In place: what is below the threshold becomes -inf. Plain loops, which compilers vectorise.
APH_INLINE void remove_below(float* logits, int64_t width, float threshold) {
  for (int64_t i = 0; i < width; ++i)
    logits[i] = logits[i] < threshold ? -__builtin_inff() : logits[i];
}

}  // namespace aph::APH_LEVEL
