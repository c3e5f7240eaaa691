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
constexpr double kFarthestReach = 1000.0;

// What a worker needs for a row.
struct TailRoom {
  double* curve;     // [width + 2]
  Ranked* items;     // [width]
  Ranked* other;     // [width]
  float* heights;    // [blocks]
  uint32_t* counts;  // of sort_ranked
};

struct Cut {
  float least;  // what stays
  bool certain;
};

static int64_t rank_from(const float* logits, int64_t width, float floor, const TailRoom& room) {
  int64_t count = 0;
  for (int64_t begin = 0; begin < width; begin += kLogitBlock) {
    if (room.heights[begin / kLogitBlock] < floor) continue;
    for (int64_t i = begin; i < block_end(begin, width); ++i) {
      room.items[count] = {~rank_of(logits[i]), static_cast<uint32_t>(i)};
      count += logits[i] >= floor;
    }
  }
  return count;
}

// sorted: the `count` largest of the row. whole: all others are impossible.
static Cut cut_of(const Ranked* sorted, int64_t count, int64_t width, double peak, double share,
                  bool whole, double* curve) {
  for (int64_t i = 0; i < count; ++i)
    curve[i] = exponential(static_cast<double>(value_of(~sorted[i].below)) - peak);
  int64_t length = count;
  if (whole)
    while (length < width && length < count + 2) curve[length++] = 0.0;
  if (length < 3) return {-__builtin_inff(), whole};
  const double behind = whole ? 0.0 : curve[count - 2] + curve[count - 1];
  double upto = 0.0;
  for (int64_t i = 0; i + 2 < length; ++i) {
    upto += __builtin_fabs((curve[i + 2] - curve[i + 1]) - (curve[i + 1] - curve[i]));
    curve[i] = upto;
  }
  if (upto <= 0.0) return {-__builtin_inff(), whole};
  int64_t last = 0;
  while (last + 2 < length && curve[last] <= share * upto) ++last;
  const bool certain = last + 2 < length && curve[last] > share * (upto + behind);
  const float least = last < count ? value_of(~sorted[last].below) : -__builtin_inff();
  return {least, certain || whole};
}

static void keep_tail_free_row(float* logits, int64_t width, double share, const TailRoom& room) {
  if (share >= 1.0 || width < 3) return;
  const Peak peak = find_peak(logits, width, room.heights);
  if (!peak.valid) return;
  for (double reach = kFirstReach - logarithm(1.0 - share);; reach *= 2.0) {
    const bool whole = reach > kFarthestReach;
    const float floor = whole ? -FLT_MAX : static_cast<float>(peak.value - reach);
    const int64_t count = rank_from(logits, width, floor, room);
    const Ranked* sorted = sort_ranked(room.items, room.other, count, room.counts);
    const Cut cut = cut_of(sorted, count, width, peak.value, share, whole, room.curve);
    if (!cut.certain) continue;
    remove_below(logits, width, cut.least);
    return;
  }
}

int keep_tail_free(const aph_keep_tail_free_args& args) {
  const size_t width = args.width;
  const size_t bytes = (width + 2) * sizeof(double) + 2 * width * sizeof(Ranked) +
                       blocks_of(args.width) * sizeof(float) +
                       kDigits * kDigitSize * sizeof(uint32_t);
  parallel_for(args.runtime, args.rows, 1, [&](int64_t begin, int64_t end, int worker) {
    double* curve = static_cast<double*>(scratch(args.runtime, worker, bytes));
    Ranked* items = reinterpret_cast<Ranked*>(curve + width + 2);
    float* heights = reinterpret_cast<float*>(items + 2 * width);
    uint32_t* counts = reinterpret_cast<uint32_t*>(heights + blocks_of(args.width));
    const TailRoom room{curve, items, items + width, heights, counts};
    for (int64_t row = begin; row < end; ++row)
      keep_tail_free_row(args.logits + row * args.stride, args.width, args.share[row], room);
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_keep_tail_free, aph_keep_tail_free_args, keep_tail_free)
