// Weights e^(logit - peak) of a row in float64, where sums decide what stays.
#pragma once

#include "doubles.h"
#include "logits.h"

namespace aph::APH_LEVEL {

struct Weighed {
  double total;  // of all weights
  double mean;   // of logit - peak, each weighted
};

// Sums over lanes, in one order on every instruction set.
struct LaneSum {
  double lanes[8] = {};
  APH_INLINE_MEMBER void add(const double* numbers, int64_t count) {
    int64_t i = 0;
    for (; i + 8 <= count; i += 8)
      for (int lane = 0; lane < 8; ++lane) lanes[lane] += numbers[i + lane];
    for (; i < count; ++i) lanes[i % 8] += numbers[i];
  }
  APH_INLINE_MEMBER double total() const {
    double sum = 0.0;
    for (const double each : lanes) sum += each;
    return sum;
  }
};

// e^(logits - peak); the peak is the largest of them.
APH_INLINE void weigh(const float* logits, int64_t count, double peak, double* weights) {
  for (int64_t i = 0; i < count; ++i)
    weights[i] = exponential(static_cast<double>(logits[i]) - peak);
}

// Weighs a row; `weights` [width], if not null, gets the weights.
inline Weighed weigh_row(const float* logits, int64_t width, double peak, double* weights) {
  alignas(64) double block[kLogitBlock], moments[kLogitBlock];
  LaneSum total, moment;
  for (int64_t begin = 0; begin < width; begin += kLogitBlock) {
    const int64_t count = block_end(begin, width) - begin;
    double* own = weights ? weights + begin : block;
    weigh(logits + begin, count, peak, own);
    for (int64_t i = 0; i < count; ++i) {
      const double gap = static_cast<double>(logits[begin + i]) - peak;
      moments[i] = own[i] * (gap < kWeightless64 ? kWeightless64 : gap);
    }
    total.add(own, count);
    moment.add(moments, count);
  }
  return {total.total(), moment.total() / total.total()};
}

}  // namespace aph::APH_LEVEL
