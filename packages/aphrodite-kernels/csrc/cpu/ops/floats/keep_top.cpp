// Removes all but the largest logits of each row that together reach a count or a probability.
//
// A search by digits: logits become unsigned numbers in the same order, whose upper, middle and
// lower bits are summed up in turn, from the largest down, until the sum reaches what is wanted.

#include "runtime.h"

#include "logits.h"

struct aph_keep_top_args {
  int64_t rows;
  aph_runtime* runtime;
  float* logits;        // [rows, width]
  const double* wanted;  // [rows]: tokens, or a share of the probability
  int64_t width, stride;
  int32_t weighted;  // 0: a count, all stay if it is below 1 or reaches width; 1: all stay from 1 up
};

namespace aph::APH_LEVEL {

constexpr int kBins = 2048;
constexpr int kShifts[] = {21, 10, 0};

// Unsigned and in the order of the floats; both zeros are one number.
APH_INLINE uint32_t rank_of(float value) {
  const uint32_t bits = bits_of(value + 0.0f);
  return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}
APH_INLINE float value_of(uint32_t rank) {
  return float_of(rank ^ (rank >> 31 ? 0x80000000u : 0xffffffffu));
}

// The largest logits whose weights (null: 1 each) reach `wanted`: the least of them.
static float last_of(const float* logits, const float* weights, int64_t width, double wanted,
                     double* bins) {
  uint32_t prefix = 0, known = 0;  // known: the mask of the bits that are decided
  for (const int shift : kShifts) {
    const uint32_t size = shift ? kBins : kBins / 2;
    for (uint32_t bin = 0; bin < size; ++bin) bins[bin] = 0.0;
    for (int64_t i = 0; i < width; ++i) {
      const uint32_t rank = rank_of(logits[i]);
      if ((rank & known) == prefix)
        bins[rank >> shift & (size - 1)] += weights ? weights[i] : 1.0f;
    }
    uint32_t filled = size;  // rounding may leave the sum short: then the last that has something
    double before = 0.0, upto = 0.0;
    for (uint32_t bin = size; bin-- > 0 && upto < wanted;) {
      if (bins[bin] == 0.0) continue;
      before = upto;
      upto += bins[bin];
      filled = bin;
    }
    wanted -= before;
    if (filled == size) return -__builtin_inff();
    prefix |= filled << shift;
    known |= (size - 1) << shift;
  }
  return value_of(prefix);
}

static void keep_top_row(float* logits, int64_t width, double wanted, bool weighted,
                         float* weights, double* bins) {
  if (weighted ? wanted >= 1.0 : wanted < 1.0 || wanted >= width) return;
  const Peak peak = find_peak(logits, width);
  if (!peak.valid) return;
  if (!weighted) return remove_below(logits, width, last_of(logits, nullptr, width, wanted, bins));
  for (int64_t begin = 0; begin < width; begin += kLogitBlock)
    weigh(logits + begin, block_end(begin, width) - begin, peak.value, weights + begin);
  double total = 0.0;  // in float64 from number to number: sums of blocks are too rough
  for (int64_t i = 0; i < width; ++i) total += weights[i];
  remove_below(logits, width, last_of(logits, weights, width, wanted * total, bins));
}

int keep_top(const aph_keep_top_args& args) {
  const size_t bytes = kBins * sizeof(double) + args.width * sizeof(float);
  parallel_for(args.runtime, args.rows, 1, [&](int64_t begin, int64_t end, int worker) {
    double* bins = static_cast<double*>(scratch(args.runtime, worker, bytes));
    float* weights = reinterpret_cast<float*>(bins + kBins);
    for (int64_t row = begin; row < end; ++row)
      keep_top_row(args.logits + row * args.stride, args.width, args.wanted[row],
                   args.weighted != 0, weights, bins);
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_keep_top, aph_keep_top_args, keep_top)
