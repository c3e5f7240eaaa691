// The smallest logit of each row that reaches a threshold.

#include "runtime.h"

#include <cfloat>

#include "logits.h"

struct aph_least_from_args {
  int64_t rows;
  aph_runtime* runtime;
  const float* logits;  // [rows, width]
  int64_t width, stride;
  const float* threshold;  // [rows]
  float* result;           // [rows]: infinity if there is none; never -infinity
};

namespace aph::APH_LEVEL {

static float least_from_row(const float* logits, int64_t width, float threshold) {
  const float limit = threshold < -FLT_MAX ? -FLT_MAX : threshold;
  Floats highest = all_floats(-__builtin_inff());  // of the negatives
  alignas(64) float negatives[kLogitBlock];
  for (int64_t begin = 0; begin < width; begin += kLogitBlock) {
    const int64_t count = block_end(begin, width) - begin;
    for (int64_t i = 0; i < count; ++i)
      negatives[i] = logits[begin + i] >= limit ? -logits[begin + i] : -__builtin_inff();
    for (int64_t i = count; i < kLogitBlock; ++i) negatives[i] = -__builtin_inff();
    for (int64_t i = 0; i < kLogitBlock; i += kLanes)
      highest = largest(load(negatives + i), highest);
  }
  return -largest(highest);
}

int least_from(const aph_least_from_args& args) {
  parallel_for(args.runtime, args.rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row)
      args.result[row] =
          least_from_row(args.logits + row * args.stride, args.width, args.threshold[row]);
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_least_from, aph_least_from_args, least_from)
