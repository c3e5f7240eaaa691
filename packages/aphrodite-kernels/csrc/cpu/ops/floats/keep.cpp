// Removes the logits of each row on one side of a limit, in place.

#include "runtime.h"

#include "logits.h"

struct aph_keep_args {
  int64_t rows;
  aph_runtime* runtime;
  float* logits;  // [rows, width]
  int64_t width, stride;
  const float* limit;  // [rows]
  int32_t rule;  // 0: what is below it goes, 1: below the largest plus it, 2: above it
};

namespace aph::APH_LEVEL {

static void remove_above(float* logits, int64_t width, float limit) {
  for (int64_t i = 0; i < width; ++i)
    logits[i] = logits[i] > limit ? -__builtin_inff() : logits[i];
}

static void keep_row(float* logits, int64_t width, float limit, int32_t rule) {
  const float infinity = __builtin_inff();
  if (rule == 2) {
    if (limit < infinity) remove_above(logits, width, limit);
    return;
  }
  if (limit == -infinity) return;
  if (rule == 1) {
    const Peak peak = find_peak(logits, width);
    if (!peak.valid) return;
    limit += peak.value;
  }
  remove_below(logits, width, limit);
}

int keep(const aph_keep_args& args) {
  parallel_for(args.runtime, args.rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row)
      keep_row(args.logits + row * args.stride, args.width, args.limit[row], args.rule);
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_keep, aph_keep_args, keep)
