// The logarithm of the sum of exponentials of each row of logits.

#include "runtime.h"

#include "logits.h"

struct aph_logsumexp_args {
  int64_t rows;
  aph_runtime* runtime;
  const float* logits;  // [rows, width]
  int64_t width, stride;
  float* result;  // [rows]
};

namespace aph::APH_LEVEL {

static float log_sum(const float* logits, int64_t width, float* sums) {
  const Peak peak = find_peak(logits, width, sums);
  if (!peak.valid) {  // a finite largest is that of a row with NaN
    const bool finite = peak.value - peak.value == 0.0f;
    return finite ? __builtin_nanf("") : peak.value;
  }
  weigh_blocks(logits, width, peak.value, sums);
  double total = 0.0;
  for (int64_t block = 0; block < blocks_of(width); ++block) total += sums[block];
  return static_cast<float>(peak.value + __builtin_log(total));
}

int logsumexp(const aph_logsumexp_args& args) {
  const size_t bytes = blocks_of(args.width) * sizeof(float);
  parallel_for(args.runtime, args.rows, 1, [&](int64_t begin, int64_t end, int worker) {
    float* sums = static_cast<float*>(scratch(args.runtime, worker, bytes));
    for (int64_t row = begin; row < end; ++row)
      args.result[row] = log_sum(args.logits + row * args.stride, args.width, sums);
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_logsumexp, aph_logsumexp_args, logsumexp)
