// Raises the cumulative probability of the sorted tokens of each row to a power, in place.
//
// With q the probability up to a token, p its own and e the power, its new logit is
//     log(q^e - (q - p)^e) = e log q + log(1 - (1 - p / q)^e).
// Tokens are put into bins by logit. In a bin that weighs next to nothing beside what is above it,
// q is as good as the same for all, and the new logit is the old one plus a number of the bin.
// Tokens of the other bins are sorted.

#include "runtime.h"

#include "ranks.h"
#include "weights.h"

struct aph_skew_args {
  int64_t rows;
  aph_runtime* runtime;
  float* logits;  // [rows, width]
  int64_t width, stride;
  const float* power;  // [rows]: 1: nothing changes
};

namespace aph::APH_LEVEL {

constexpr int kSkewBins = 8192;
constexpr double kSkewScale = 256.0;  // bins per unit of logits, from the peak down
constexpr double kLight = 1e-6;       // errors of logits stay below half of it
constexpr double kSmall = 1e-4;       // p / q, times power, that a series is good for

// What a worker needs for a row.
struct SkewRoom {
  double* bins;      // [kSkewBins]: weights, then what is added to logits: 0 of heavy bins
  double* upto;      // [kSkewBins]: q in the middle of a bin
  double* light;     // [kSkewBins]: weights of the light bins above
  double* shares;    // [width]: weights, then p / q of the sorted
  double* sums;      // [width]: q of the sorted
  Ranked* items;     // [width]
  Ranked* other;     // [width]
  uint32_t* counts;  // of sort_by_digits
  uint16_t* places;  // [width]: bins of tokens
  uint8_t* heavy;    // [kSkewBins]
};

// The last bin has the impossible tokens.
APH_INLINE int32_t place_of(double gap) {
  constexpr double last = kSkewBins - 2;
  const double place = gap * -kSkewScale;
  return static_cast<int32_t>(place < last ? place : gap > -__builtin_inf() ? last : last + 1.0);
}

static void fill_bins(const float* logits, int64_t width, double peak, const SkewRoom& room) {
  for (int bin = 0; bin < kSkewBins; ++bin) room.bins[bin] = 0.0;
  for (int64_t begin = 0; begin < width; begin += kLogitBlock) {
    const int64_t end = block_end(begin, width);
    weigh(logits + begin, end - begin, peak, room.shares + begin);
    for (int64_t i = begin; i < end; ++i)
      room.places[i] = static_cast<uint16_t>(place_of(static_cast<double>(logits[i]) - peak));
    for (int64_t i = begin; i < end; ++i)
      if (room.shares[i] > 0.0) room.bins[room.places[i]] += room.shares[i];
  }
}

// Says which bins are heavy and gives the others what is added to their tokens' logits. `base` is
// log(e p) - logit: the new logit of a light token less the old one, where q is 1.
static void weigh_bins(double power, double base, double total, const SkewRoom& room) {
  const double off = power > 1.0 ? 2.0 * power : 2.0;
  double before = 0.0, light = 0.0;
  for (int bin = 0; bin < kSkewBins; ++bin) {
    const double own = room.bins[bin];
    const bool heavy = own * off > kLight * before;
    room.upto[bin] = (before + 0.5 * own) / total;
    room.light[bin] = light;
    room.heavy[bin] = heavy;
    light += heavy ? 0.0 : own;
    before += own;
  }
  for (int bin = 0; bin < kSkewBins; ++bin)
    room.bins[bin] = room.heavy[bin] ? 0.0 : (power - 1.0) * logarithm(room.upto[bin]) + base;
}

// Changes tokens of light bins, and collects the others; their number.
static int64_t skew_light(float* logits, int64_t width, const SkewRoom& room) {
  for (int64_t i = 0; i < width; ++i)
    logits[i] = static_cast<float>(static_cast<double>(logits[i]) + room.bins[room.places[i]]);
  int64_t count = 0;
  for (int64_t i = 0; i < width; ++i) {
    room.items[count] = {~rank_of(logits[i]), static_cast<uint32_t>(i)};
    count += room.heavy[room.places[i]];
  }
  return count;
}

// Adds up numbers so far, in place, in pieces that do not wait for each other.
static void add_up(double* numbers, int64_t count) {
  constexpr int kPieces = 8;
  const int64_t size = count / kPieces;
  double upto[kPieces] = {}, before = 0.0;
  for (int64_t i = 0; i < size; ++i)
    for (int piece = 0; piece < kPieces; ++piece)
      numbers[piece * size + i] = upto[piece] += numbers[piece * size + i];
  for (int piece = 0; piece < kPieces; ++piece) {
    for (int64_t i = piece * size; i < (piece + 1) * size; ++i) numbers[i] += before;
    before += upto[piece];
  }
  for (int64_t i = kPieces * size; i < count; ++i) numbers[i] = before += numbers[i];
}

// Fills in q and p / q of the sorted tokens.
static void sum_up(const Ranked* sorted, int64_t count, double peak, const SkewRoom& room) {
  for (int64_t i = 0; i < count; ++i) {
    const double gap = static_cast<double>(value_of(~sorted[i].below)) - peak;
    room.sums[i] = room.shares[i] = exponential(gap);
    room.places[i] = static_cast<uint16_t>(place_of(gap));
  }
  add_up(room.sums, count);
  for (int64_t i = 0; i < count; ++i) {
    room.sums[i] += room.light[room.places[i]];
    room.shares[i] /= room.sums[i];
  }
}

// q and p / q of the sorted tokens -> their new logits, in the place of q.
static void skew_sorted(const Ranked* sorted, int64_t count, double power, double base,
                        double total, const SkewRoom& room) {
  int64_t exact = 0;  // p / q falls along the sorted tokens
  while (exact < count && room.shares[exact] * (power + 1.0) > kSmall) ++exact;
  for (int64_t i = 0; i < exact; ++i) {
    const double share = room.shares[i] < 1.0 ? room.shares[i] : 1.0;
    const double gain = -exponential_less_one(power * logarithm_of_more(-share));
    room.sums[i] = power * logarithm(room.sums[i] / total) + logarithm(gain);
  }
  const double first = 0.5 * (power - 1.0), second = first * (power - 2.0) / 3.0;
  for (int64_t i = exact; i < count; ++i) {  // the series of log((1 - (1 - p/q)^e) / (e p/q))
    const double share = room.shares[i];
    const double more = share * (second * share - first);
    room.sums[i] = (power - 1.0) * logarithm(room.sums[i] / total) + base +
                   static_cast<double>(value_of(~sorted[i].below)) +
                   more * (1.0 - more * (0.5 - more * (1.0 / 3.0)));
  }
}

static void skew_row(float* logits, int64_t width, double power, const SkewRoom& room) {
  const Peak peak = find_peak(logits, width);
  if (power == 1.0 || !peak.valid) return;
  fill_bins(logits, width, peak.value, room);
  double total = 0.0;
  for (int bin = 0; bin < kSkewBins; ++bin) total += room.bins[bin];
  const double base = logarithm(power) - logarithm(total) - peak.value;
  weigh_bins(power, base, total, room);
  const int64_t count = skew_light(logits, width, room);
  const Ranked* sorted = sort_by_digits(room.items, room.other, count, room.counts);
  sum_up(sorted, count, peak.value, room);
  skew_sorted(sorted, count, power, base, total, room);
  for (int64_t i = 0; i < count; ++i)
    logits[sorted[i].token] = static_cast<float>(room.sums[i]);
}

int skew(const aph_skew_args& args) {
  const size_t width = args.width;
  const size_t bytes = kSkewBins * (3 * sizeof(double) + sizeof(uint8_t)) +
                       width * (2 * sizeof(double) + 2 * sizeof(Ranked) + sizeof(uint16_t)) +
                       kDigits * kDigitSize * sizeof(uint32_t);
  parallel_for(args.runtime, args.rows, 1, [&](int64_t begin, int64_t end, int worker) {
    double* bins = static_cast<double*>(scratch(args.runtime, worker, bytes));
    double* shares = bins + 3 * kSkewBins;
    Ranked* items = reinterpret_cast<Ranked*>(shares + 2 * width);
    uint32_t* counts = reinterpret_cast<uint32_t*>(items + 2 * width);
    uint16_t* places = reinterpret_cast<uint16_t*>(counts + kDigits * kDigitSize);
    const SkewRoom room{bins,   bins + kSkewBins, bins + 2 * kSkewBins,
                        shares, shares + width,   items,
                        items + width, counts,    places,
                        reinterpret_cast<uint8_t*>(places + width)};
    for (int64_t row = begin; row < end; ++row)
      skew_row(args.logits + row * args.stride, args.width, args.power[row], room);
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_skew, aph_skew_args, skew)
