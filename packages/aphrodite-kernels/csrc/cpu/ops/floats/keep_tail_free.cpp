// Removes the tail behind which the curve of sorted weights has little curvature.
//
// Curvatures are the absolute second differences of the sorted weights. Those from weight w on sum
// up to w and its successor at most, for their first differences do: so the likeliest tokens alone,
// sorted, say where the cut is, unless what may be behind them could move it. Then more are sorted.

#include "runtime.h"

#include <cfloat>

#include "ranks.h"
#include "weights.h"

struct aph_keep_tail_free_args {
  int64_t rows;
  aph_runtime* runtime;
  float* logits;  // [rows, width]
  int64_t width, stride;
  const float* share;  // [rows]: from 1 up all stay
};

namespace aph::APH_LEVEL {

constexpr double kFirstReach = 6.0;  // of logits below the peak; farther for shares near 1
constexpr double kAll = 50.0;        // from here on it reaches all

// What a worker needs for a row.
struct TailRoom {
  double* curve;     // [width + 2]
  uint32_t* keys;    // [width]
  uint32_t* other;   // [width]
  float* heights;    // [blocks]
  uint32_t* counts;  // of sort_by_digits
};

struct Cut {
  float least;    // what stays
  double margin;  // curvature behind the sorted ones that would not move the cut
};

static double weight_at(const uint32_t* sorted, int64_t place, double peak) {
  return place < 0 ? 1.0 : exponential(static_cast<double>(value_of(~sorted[place])) - peak);
}

// sorted: keys of the `count` largest of the row. whole: all others are impossible.
static Cut cut_of(const uint32_t* sorted, int64_t count, int64_t width, double peak, double share,
                  bool whole, double* curve) {
  for (int64_t i = 0; i < count; ++i)
    curve[i] = exponential(static_cast<double>(value_of(~sorted[i])) - peak);
  int64_t length = count;
  if (whole)
    while (length < width && length < count + 2) curve[length++] = 0.0;
  double upto = 0.0;
  for (int64_t i = 0; i + 2 < length; ++i) {
    upto += __builtin_fabs((curve[i + 2] - curve[i + 1]) - (curve[i + 1] - curve[i]));
    curve[i] = upto;
  }
  if (upto <= 0.0) return {-__builtin_inff(), 0.0};
  int64_t last = 0;
  while (last + 3 < length && curve[last] <= share * upto) ++last;
  const float least = last < count ? value_of(~sorted[last]) : -__builtin_inff();
  return {least, curve[last] / share - upto};
}

static float least_kept(const float* logits, int64_t width, double peak, double share,
                        const TailRoom& room) {
  const int64_t possible = count_possible(logits, width);
  double reach = kFirstReach - logarithm(1.0 - share);
  for (;;) {
    const float floor = reach < kAll ? static_cast<float>(peak - reach) : -FLT_MAX;
    const int64_t count =
        collect_from(logits, width, floor, room.heights,
                     [&](int64_t i, int64_t place) { room.keys[place] = ~rank_of(logits[i]); });
    const uint32_t* sorted = sort_by_digits(room.keys, room.other, count, room.counts);
    const bool whole = count == possible;
    const Cut cut = cut_of(sorted, count, width, peak, share, whole, room.curve);
    const double behind = weight_at(sorted, count - 1, peak) + weight_at(sorted, count - 2, peak);
    if (whole || cut.margin > behind) return cut.least;
    reach = cut.margin > 0.0 ? reach + 1.0 - logarithm(cut.margin / behind) : reach + 5.0;
  }
}

static void keep_tail_free_row(float* logits, int64_t width, double share, const TailRoom& room) {
  if (share >= 1.0 || width < 3) return;
  const Peak peak = find_peak(logits, width, room.heights);
  if (!peak.valid) return;
  remove_below(logits, width, least_kept(logits, width, peak.value, share, room));
}

int keep_tail_free(const aph_keep_tail_free_args& args) {
  const size_t width = args.width;
  const size_t bytes = (width + 2) * sizeof(double) + 2 * width * sizeof(uint32_t) +
                       blocks_of(args.width) * sizeof(float) +
                       kDigits * kDigitSize * sizeof(uint32_t);
  parallel_for(args.runtime, args.rows, 1, [&](int64_t begin, int64_t end, int worker) {
    double* curve = static_cast<double*>(scratch(args.runtime, worker, bytes));
    uint32_t* keys = reinterpret_cast<uint32_t*>(curve + width + 2);
    float* heights = reinterpret_cast<float*>(keys + 2 * width);
    uint32_t* counts = reinterpret_cast<uint32_t*>(heights + blocks_of(args.width));
    const TailRoom room{curve, keys, keys + width, heights, counts};
    for (int64_t row = begin; row < end; ++row)
      keep_tail_free_row(args.logits + row * args.stride, args.width, args.share[row], room);
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_keep_tail_free, aph_keep_tail_free_args, keep_tail_free)
