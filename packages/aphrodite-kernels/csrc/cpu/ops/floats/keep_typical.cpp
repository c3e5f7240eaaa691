// Removes all but the tokens nearest to the expected surprise that together reach a probability.
//
// With d the logit's distance from the mean of logit - peak (each weighted by its probability), a
// token's surprise is d off the entropy. Weights are summed up in bins of d; of the bin in which the
// sum reaches what is wanted, the members are sorted apart by smaller bins, down to a few.

#include "runtime.h"

#include "weights.h"

struct aph_keep_typical_args {
  int64_t rows;
  aph_runtime* runtime;
  float* logits;  // [rows, width]
  int64_t width, stride;
  const float* share;  // [rows]: from 1 up all stay
};

namespace aph::APH_LEVEL {

constexpr int kDistanceBins = 1024;
constexpr double kFirstScale = 64.0;  // bins per unit of distance: what is beyond 16 weighs little
constexpr int64_t kFew = 48;

struct Distant { double distance, weight; };

// What a worker needs for a row.
struct TypicalRoom {
  double* bins;     // [kDistanceBins]
  double* weights;  // [width]
  Distant* members;  // [width]
  uint16_t* places;  // [width]: bins
};

APH_INLINE double distance_of(float logit, double centre) {
  const double gap = static_cast<double>(logit) - centre;
  return gap < 0.0 ? -gap : gap;
}
APH_INLINE int32_t bin_of(double distance, double from, double scale) {
  const double place = (distance - from) * scale;
  return static_cast<int32_t>(place < kDistanceBins - 1 ? place : kDistanceBins - 1);
}

// The bin at which the sum reaches `wanted`, which becomes what is wanted of it; -1 if none does.
static int reaching(const double* bins, double* wanted) {
  for (int bin = 0; bin < kDistanceBins; ++bin) {
    if (bins[bin] >= *wanted && bins[bin] > 0.0) return bin;
    *wanted -= bins[bin];
  }
  return -1;
}

static double farthest_of_few(Distant* members, int64_t count, double wanted) {
  for (int64_t i = 1; i < count; ++i) {
    const Distant each = members[i];
    int64_t at = i;
    for (; at > 0 && members[at - 1].distance > each.distance; --at) members[at] = members[at - 1];
    members[at] = each;
  }
  double upto = 0.0;
  for (int64_t i = 0; i < count; ++i) {
    upto += members[i].weight;
    if (upto >= wanted) return members[i].distance;
  }
  return members[count - 1].distance;
}

static double farthest(Distant* members, int64_t count, double wanted, double* bins) {
  for (;;) {
    double least = members[0].distance, most = least;
    for (int64_t i = 1; i < count; ++i) {
      const double each = members[i].distance;
      least = each < least ? each : least;
      most = each > most ? each : most;
    }
    if (least == most) return least;
    if (count <= kFew) return farthest_of_few(members, count, wanted);
    const double scale = kDistanceBins / (most - least);
    for (int bin = 0; bin < kDistanceBins; ++bin) bins[bin] = 0.0;
    for (int64_t i = 0; i < count; ++i)
      bins[bin_of(members[i].distance, least, scale)] += members[i].weight;
    const int chosen = reaching(bins, &wanted);
    if (chosen < 0) return most;
    int64_t left = 0;
    for (int64_t i = 0; i < count; ++i)
      if (bin_of(members[i].distance, least, scale) == chosen) members[left++] = members[i];
    count = left;
  }
}

// The largest distance that stays; infinity: all stay.
static double farthest_kept(const float* logits, int64_t width, double centre, double wanted,
                            const TypicalRoom& room) {
  for (int bin = 0; bin < kDistanceBins; ++bin) room.bins[bin] = 0.0;
  for (int64_t begin = 0; begin < width; begin += kLogitBlock) {
    const int64_t end = block_end(begin, width);
    for (int64_t i = begin; i < end; ++i)
      room.places[i] =
          static_cast<uint16_t>(bin_of(distance_of(logits[i], centre), 0.0, kFirstScale));
    for (int64_t i = begin; i < end; ++i)
      if (room.weights[i] > 0.0) room.bins[room.places[i]] += room.weights[i];
  }
  const int chosen = reaching(room.bins, &wanted);
  if (chosen < 0) return __builtin_inf();
  int64_t count = 0;
  for (int64_t i = 0; i < width; ++i)
    if (room.places[i] == chosen)
      room.members[count++] = {distance_of(logits[i], centre), room.weights[i]};
  return farthest(room.members, count, wanted, room.bins);
}

static void keep_typical_row(float* logits, int64_t width, double share, const TypicalRoom& room) {
  if (share >= 1.0) return;
  const Peak peak = find_peak(logits, width);
  if (!peak.valid) return;
  const Weighed weighed = weigh_row(logits, width, peak.value, room.weights);
  const double centre = peak.value + weighed.mean;
  const double most = farthest_kept(logits, width, centre, share * weighed.total, room);
  for (int64_t i = 0; i < width; ++i)
    logits[i] = distance_of(logits[i], centre) > most ? -__builtin_inff() : logits[i];
}

int keep_typical(const aph_keep_typical_args& args) {
  const size_t width = args.width;
  const size_t bytes = kDistanceBins * sizeof(double) +
                       width * (sizeof(double) + sizeof(Distant) + sizeof(uint16_t));
  parallel_for(args.runtime, args.rows, 1, [&](int64_t begin, int64_t end, int worker) {
    double* bins = static_cast<double*>(scratch(args.runtime, worker, bytes));
    double* weights = bins + kDistanceBins;
    Distant* members = reinterpret_cast<Distant*>(weights + width);
    const TypicalRoom room{bins, weights, members, reinterpret_cast<uint16_t*>(members + width)};
    for (int64_t row = begin; row < end; ++row)
      keep_typical_row(args.logits + row * args.stride, args.width, args.share[row], room);
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_keep_typical, aph_keep_typical_args, keep_typical)
