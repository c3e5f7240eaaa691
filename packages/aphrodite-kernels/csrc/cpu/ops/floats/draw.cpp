// One token of each row of logits, by inverting the cumulative distribution.

#include "runtime.h"

#include "logits.h"

struct aph_draw_args {
  int64_t rows;
  aph_runtime* runtime;
  const float* logits;  // [rows, width]
  int64_t width, stride;
  const float* uniform;  // [rows], in [0, 1)
  int32_t* tokens;       // [rows]
  uint8_t* valid;        // [rows]
};

namespace aph::APH_LEVEL {

// The token at which the running sum of a block's weights passes `rest`, else the last that has a
// weight: the sum in order and the sum by lanes may round apart.
static int64_t pass(const float* weights, int64_t count, double rest) {
  int64_t last = 0;
  double upto = 0.0;
  for (int64_t i = 0; i < count; ++i) {
    if (weights[i] <= 0.0f) continue;
    upto += weights[i];
    last = i;
    if (upto > rest) break;
  }
  return last;
}

// sums: of each block.
static int64_t draw_row(const float* logits, int64_t width, float peak, float uniform,
                        const float* sums) {
  const int64_t last = (width - 1) / kLogitBlock;
  double total = 0.0;
  for (int64_t block = 0; block <= last; ++block) total += sums[block];
  const double target = uniform * total;
  double before = 0.0;
  int64_t block = 0;
  while (block < last && before + sums[block] <= target) before += sums[block++];
  const int64_t begin = block * kLogitBlock, count = block_end(begin, width) - begin;
  alignas(64) float weights[kLogitBlock];
  weigh(logits + begin, count, peak, weights);
  return begin + pass(weights, count, target - before);
}

int draw(const aph_draw_args& args) {
  const size_t bytes = blocks_of(args.width) * sizeof(float);
  parallel_for(args.runtime, args.rows, 1, [&](int64_t begin, int64_t end, int worker) {
    float* sums = static_cast<float*>(scratch(args.runtime, worker, bytes));
    for (int64_t row = begin; row < end; ++row) {
      const float* logits = args.logits + row * args.stride;
      const Peak peak = find_peak(logits, args.width, sums);
      args.valid[row] = peak.valid;
      args.tokens[row] = 0;
      if (!peak.valid) continue;
      weigh_blocks(logits, args.width, peak.value, sums);
      args.tokens[row] = static_cast<int32_t>(
          draw_row(logits, args.width, peak.value, args.uniform[row], sums));
    }
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_draw, aph_draw_args, draw)
