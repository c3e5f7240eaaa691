// Gives tokens logits by how near their probabilities are to one that is aimed at, in place.

#include "runtime.h"

#include "logits.h"

struct aph_prefer_args {
  int64_t rows;
  aph_runtime* runtime;
  float* logits;  // [rows, width]
  int64_t width, stride;
  const float* aim;  // [rows]; below 0: nothing changes
  float* result;     // [rows, width]: probabilities, where the row is finite
};

namespace aph::APH_LEVEL {

constexpr float kAimWidth = 0.3f, kAimPeak = 5.0f, kAimSteepness = 10.0f;

static void prefer_row(float* logits, int64_t width, float aim, float* chances, float* sums) {
  const Peak peak = find_peak(logits, width, sums);
  if (!peak.valid) return;
  weigh_blocks(logits, width, peak.value, sums);
  double whole = 0.0;
  for (int64_t block = 0; block < blocks_of(width); ++block) whole += sums[block];
  const float total = static_cast<float>(peak.value + __builtin_log(whole));
  for (int64_t begin = 0; begin < width; begin += kLogitBlock) {
    const int64_t end = block_end(begin, width);
    weigh(logits + begin, end - begin, total, chances + begin);
    if (aim < 0.0f) continue;
    for (int64_t i = begin; i < end; ++i) {
      const float off = chances[i] - aim;
      const float distance = (off < 0.0f ? -off : off) / kAimWidth;
      const float weight = kAimPeak - kAimSteepness * (distance * distance / (distance + 1.0f));
      logits[i] = logits[i] > -__builtin_inff() ? weight : -__builtin_inff();
    }
  }
}

int prefer(const aph_prefer_args& args) {
  const size_t bytes = blocks_of(args.width) * sizeof(float);
  parallel_for(args.runtime, args.rows, 1, [&](int64_t begin, int64_t end, int worker) {
    float* sums = static_cast<float*>(scratch(args.runtime, worker, bytes));
    for (int64_t row = begin; row < end; ++row)
      prefer_row(args.logits + row * args.stride, args.width, args.aim[row],
                 args.result + row * args.width, sums);
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_prefer, aph_prefer_args, prefer)
