// Removes all but the largest logits of each row that together reach a count or a probability.
//
// Few logits come into question: those from a floor up, which is low enough for certain. Among them
// a search by digits: logits become unsigned numbers in the same order, whose upper, middle and
// lower bits are summed up in turn, from the largest down, until the sum reaches what is wanted.

#include "runtime.h"

#include "logits.h"
#include "ranks.h"

struct aph_keep_top_args {
  int64_t rows;
  aph_runtime* runtime;
  float* logits;  // [rows, width]
  int64_t width, stride;
  const double* wanted;  // [rows]: tokens, or a share of the probability
  int32_t weighted;  // 0: a count, all stay if it is below 1 or reaches width; 1: all stay from 1 up
};

namespace aph::APH_LEVEL {

constexpr int kBins = 2048;
constexpr double kFloorMargin = 0.01;  // for rounding
constexpr int kShifts[] = {21, 10, 0};

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

// What a worker needs for a row.
struct Room {
  double* bins;    // [kBins]
  float* heights;  // [blocks]: the largest of each block
  float* weights;  // [width]
  float* kept;     // [width]: candidates
};

// Moves the logits from `floor` up to the front of `kept`, and their weights, if there are any, to
// the front of the weights; their number.
static int64_t collect(const float* logits, int64_t width, float floor, bool weighted,
                       const Room& room) {
  return collect_from(logits, width, floor, room.heights, [&](int64_t i, int64_t place) {
    room.kept[place] = logits[i];
    if (weighted) room.weights[place] = room.weights[i];
  });
}

// The k-th largest is at least the k-th largest of the blocks' largest.
static float last_counted(const float* logits, int64_t width, double wanted, const Room& room) {
  const int64_t blocks = blocks_of(width);
  const float floor = wanted > blocks ? -__builtin_inff()
                                      : last_of(room.heights, nullptr, blocks, wanted, room.bins);
  const int64_t count = collect(logits, width, floor, false, room);
  return last_of(room.kept, nullptr, count, wanted, room.bins);
}

// Logits below peak + log(rest / width) together weigh less than what may be left out, the rest.
static float last_weighted(const float* logits, int64_t width, double share, float peak,
                           const Room& room) {
  double sums[8] = {};  // in float64 from number to number: sums of blocks are too rough
  for (int64_t begin = 0; begin < width; begin += kLogitBlock) {
    const int64_t count = block_end(begin, width) - begin;
    float* weights = room.weights + begin;
    if (room.heights[begin / kLogitBlock] - peak < kWeightless) {
      std::memset(weights, 0, count * sizeof(float));
      continue;
    }
    weigh(logits + begin, count, peak, weights);
    int64_t i = 0;
    for (; i + 8 <= count; i += 8)
      for (int lane = 0; lane < 8; ++lane) sums[lane] += weights[i + lane];
    for (; i < count; ++i) sums[i % 8] += weights[i];
  }
  double total = 0.0;
  for (const double each : sums) total += each;
  const double rest = (1.0 - share) * total / static_cast<double>(width);
  const float floor = static_cast<float>(peak + __builtin_log(rest) - kFloorMargin);
  const int64_t count = collect(logits, width, floor, true, room);
  return last_of(room.kept, room.weights, count, share * total, room.bins);
}

static void keep_top_row(float* logits, int64_t width, double wanted, bool weighted,
                         const Room& room) {
  if (weighted ? wanted >= 1.0 : wanted < 1.0 || wanted >= width) return;
  const Peak peak = find_peak(logits, width, room.heights);
  if (!peak.valid) return;
  remove_below(logits, width,
               weighted ? last_weighted(logits, width, wanted, peak.value, room)
                        : last_counted(logits, width, wanted, room));
}

int keep_top(const aph_keep_top_args& args) {
  const int64_t blocks = blocks_of(args.width);
  const size_t bytes = kBins * sizeof(double) + (blocks + 2 * args.width) * sizeof(float);
  parallel_for(args.runtime, args.rows, 1, [&](int64_t begin, int64_t end, int worker) {
    double* bins = static_cast<double*>(scratch(args.runtime, worker, bytes));
    float* heights = reinterpret_cast<float*>(bins + kBins);
    const Room room{bins, heights, heights + blocks, heights + blocks + args.width};
    for (int64_t row = begin; row < end; ++row)
      keep_top_row(args.logits + row * args.stride, args.width, args.wanted[row],
                   args.weighted != 0, room);
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_keep_top, aph_keep_top_args, keep_top)
