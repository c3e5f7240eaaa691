// Bends each row of logits along a curve through its largest, in place.

#include "runtime.h"

#include "logits.h"

struct aph_bend_args {
  int64_t rows;
  aph_runtime* runtime;
  float* logits;  // [rows, width]
  int64_t width, stride;
  const float* square;  // [rows]
  const float* cube;    // [rows]; both 0: nothing changes
};

namespace aph::APH_LEVEL {

constexpr float kFarthest = -1e6f;  // distances beyond are as impossible as any

static void bend_row(float* logits, int64_t width, float square, float cube) {
  if (square == 0.0f && cube == 0.0f) return;
  const Peak peak = find_peak(logits, width);
  if (!peak.valid) return;
  for (int64_t i = 0; i < width; ++i) {
    const float gap = logits[i] - peak.value;
    const float distance = gap < kFarthest ? kFarthest : gap;
    const float bent = (cube * distance - square) * (distance * distance) + peak.value;
    logits[i] = logits[i] > -__builtin_inff() ? bent : -__builtin_inff();
  }
}

int bend(const aph_bend_args& args) {
  parallel_for(args.runtime, args.rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row)
      bend_row(args.logits + row * args.stride, args.width, args.square[row], args.cube[row]);
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_bend, aph_bend_args, bend)
