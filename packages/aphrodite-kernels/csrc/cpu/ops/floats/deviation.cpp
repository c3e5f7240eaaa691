// The standard deviation of each row's finite logits.

#include "runtime.h"

#include "weights.h"

struct aph_deviation_args {
  int64_t rows;
  aph_runtime* runtime;
  const float* logits;  // [rows, width]
  int64_t width, stride;
  double* result;  // [rows]
};

namespace aph::APH_LEVEL {

// In one pass, from the peak down: the peak itself is in the row, so the squares' mean is at most
// `width` times the variance, and float64 has digits for that.
static double deviation_row(const float* logits, int64_t width, double peak) {
  alignas(64) double gaps[kLogitBlock], squares[kLogitBlock], ones[kLogitBlock];
  LaneSum sum, square, possible;
  for (int64_t begin = 0; begin < width; begin += kLogitBlock) {
    const int64_t count = block_end(begin, width) - begin;
    for (int64_t i = 0; i < count; ++i) {
      const float logit = logits[begin + i];
      ones[i] = logit > -__builtin_inff() ? 1.0 : 0.0;
      gaps[i] = logit > -__builtin_inff() ? static_cast<double>(logit) - peak : 0.0;
      squares[i] = gaps[i] * gaps[i];
    }
    sum.add(gaps, count);
    square.add(squares, count);
    possible.add(ones, count);
  }
  const double mean = sum.total() / possible.total();
  const double variance = square.total() / possible.total() - mean * mean;
  return variance > 0.0 ? __builtin_sqrt(variance) : 0.0;
}

int deviation(const aph_deviation_args& args) {
  parallel_for(args.runtime, args.rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float* logits = args.logits + row * args.stride;
      const Peak peak = find_peak(logits, args.width);
      args.result[row] = peak.valid ? deviation_row(logits, args.width, peak.value)
                                    : __builtin_nan("");
    }
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_deviation, aph_deviation_args, deviation)
