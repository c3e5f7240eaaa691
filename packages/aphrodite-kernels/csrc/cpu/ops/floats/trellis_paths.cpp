// The paths through a trellis of 2^16 states that come nearest to given numbers (Viterbi's search).
//
// A path is a ring of 256 symbols; the state of a symbol is the 16 bits that end with it. Two symbols
// have pair_bits: the first of an odd number the smaller part. What goes on from a state is as many of
// its lowest bits, its suffix, as the next symbol leaves of 16, so that of all states with one suffix
// the best alone survives. With p the highest bits of a state whose symbol has `now` bits,
//
//   cost'[u] = min over p of cost[(p, u) >> now] + (target - number[(p, u)])²
//
// A first search, of the numbers around the ring's seam alone, settles the suffix there; the second
// begins and ends with it.

#include "runtime.h"

#include "trellis_costs.h"

struct aph_trellis_paths_args {
  int64_t rows;  // rings
  aph_runtime* runtime;
  const float* targets;  // [rows, 256]
  const float* numbers;  // [65536], of the states
  uint8_t* symbols;      // [rows, 256]
  int32_t pair_bits;
};

namespace aph::APH_LEVEL {

constexpr int kRing = 256;
constexpr int64_t kStates = 1 << 16;
constexpr float kNever = 1e30f;

// Rings that are searched together, so that a number is read once for all of them.
static constexpr int together(int bits) { return bits == 1 ? 1 : bits == 2 ? 2 : 4; }
// Numbers on either side of the seam by which it is settled.
static constexpr int reach(int bits) { return bits < 3 ? 96 : 48; }

// Bits of the symbol at a place.
template <int pair_bits>
static constexpr int bits_at(int64_t place) {
  return place % 2 ? pair_bits - pair_bits / 2 : pair_bits / 2;
}

template <int pair_bits, int count>
struct Search {
  static constexpr int kEven = bits_at<pair_bits>(0), kOdd = bits_at<pair_bits>(1);
  static constexpr int64_t kSuffixes = kStates >> kEven;  // at most
  static constexpr int64_t kPadded = kSuffixes + kLanes;
  static constexpr size_t kBytes = count * (2 * kPadded * sizeof(float) + kRing * kSuffixes);

  const float* numbers;  // see arranged
  const float* targets;  // [count, 256]
  float* costs[2];       // [count, kPadded]
  uint8_t* origins;      // [count, 256, suffixes]: the highest bits of the state before

  Search(const float* numbers, const float* targets, void* memory)
      : numbers(numbers), targets(targets) {
    costs[0] = static_cast<float*>(memory);
    costs[1] = costs[0] + count * kPadded;
    origins = reinterpret_cast<uint8_t*>(costs[1] + count * kPadded);
  }

  uint8_t* origin(int ring, int step) const {
    return origins + (static_cast<int64_t>(ring) * kRing + step) * kSuffixes;
  }

  // From costs[0] to costs[1], which change places; the next symbol has `next` bits.
  template <int now, int next>
  void take_of(int step, int place) {
    constexpr int64_t suffixes = kStates >> next;
    Floats target[count];
    for (int c = 0; c < count; ++c) target[c] = all_floats(targets[c * kRing + place]);
    const float* number = numbers + (next == kEven ? 0 : kStates);
    for (int64_t u = 0; u < suffixes; u += kLanes) {
      const float* before = costs[0] + (u >> now);
      Floats least[count];
      for (int c = 0; c < count; ++c) least[c] = all_floats(2 * kNever);
#pragma GCC unroll 4
      for (int p = 0; p < 1 << next; ++p, number += kLanes, before += suffixes >> now) {
        const Floats value = load(number);
        for (int c = 0; c < count; ++c) {
          const Floats lost = target[c] - value;
          const Floats cost = multiply_add(lost, lost, repeated<now>(before + c * kPadded));
          least[c] = smallest(least[c], marked<next>(cost, p));
        }
      }
      for (int c = 0; c < count; ++c)
        store_apart<next>(least[c], origin(c, step) + u, costs[1] + c * kPadded + u);
    }
    float* const kept = costs[0];
    costs[0] = costs[1];
    costs[1] = kept;
  }

  void take(int step, int place) {
    if (place % 2) take_of<kOdd, kEven>(step, place);
    else take_of<kEven, kOdd>(step, place);
  }

  void fill(int ring, float cost) {
    for (int64_t u = 0; u < kPadded; ++u) costs[0][ring * kPadded + u] = cost;
  }

  int64_t best(int ring) const {
    const float* cost = costs[0] + ring * kPadded;
    int64_t at = 0;
    for (int64_t u = 1; u < kSuffixes; ++u)
      if (cost[u] < cost[at]) at = u;
    return at;
  }

  // The suffix before a step that ends in suffix u, of an even place or not as the step is.
  int64_t back(int ring, int step, int64_t u) const {
    const int64_t suffixes = kStates >> bits_at<pair_bits>(step + 1);
    return (origin(ring, step)[u] * suffixes + u) >> bits_at<pair_bits>(step);
  }

  void run(uint8_t* symbols) {
    constexpr int half = reach(kEven);
    static_assert(half % 2 == 0, "steps of the first search are even where places are");
    for (int c = 0; c < count; ++c) fill(c, 0);
    for (int step = 0; step < 2 * half; ++step) take(step, (kRing - half + step) % kRing);
    int64_t seam[count];
    for (int c = 0; c < count; ++c) {
      seam[c] = best(c);
      for (int step = 2 * half - 1; step >= half; --step) seam[c] = back(c, step, seam[c]);
    }
    for (int c = 0; c < count; ++c) {
      fill(c, kNever);
      costs[0][c * kPadded + seam[c]] = 0;
    }
    for (int step = 0; step < kRing; ++step) take(step, step);
    for (int c = 0; c < count; ++c)
      for (int64_t step = kRing - 1, u = seam[c]; step >= 0; --step) {
        symbols[c * kRing + step] = static_cast<uint8_t>(u & ((1 << bits_at<pair_bits>(step)) - 1));
        u = back(c, static_cast<int>(step), u);
      }
  }
};

// In the order in which a search reads them: [suffixes / 16, 2^bits, 16].
template <int bits>
static void arrange(const float* numbers, float* arranged) {
  constexpr int64_t suffixes = kStates >> bits;
  for (int64_t u = 0; u < suffixes; u += kLanes)
    for (int64_t p = 0; p < 1 << bits; ++p)
      store(arranged + (u << bits) + p * kLanes, load(numbers + p * suffixes + u));
}

// For symbols of even places and, if they have other bits, for those of odd ones behind them.
template <int pair_bits>
static float* arranged(const aph_trellis_paths_args& args) {
  constexpr int even = bits_at<pair_bits>(0), odd = bits_at<pair_bits>(1);
  float* arranged = static_cast<float*>(scratch(args.runtime, -1, 2 * kStates * sizeof(float)));
  arrange<even>(args.numbers, arranged);
  if constexpr (even != odd) arrange<odd>(args.numbers, arranged + kStates);
  return arranged;
}

template <int pair_bits>
static void search_all(const aph_trellis_paths_args& args) {
  constexpr int most = together(bits_at<pair_bits>(0));
  const float* numbers = arranged<pair_bits>(args);
  parallel_for(args.runtime, args.rows, most, [&](int64_t begin, int64_t end, int worker) {
    void* memory = scratch(args.runtime, worker, Search<pair_bits, most>::kBytes);
    for (int64_t row = begin; row < end;) {
      const float* targets = args.targets + row * kRing;
      uint8_t* symbols = args.symbols + row * kRing;
      const bool full = end - row >= most;
      if (full) Search<pair_bits, most>(numbers, targets, memory).run(symbols);
      else Search<pair_bits, 1>(numbers, targets, memory).run(symbols);
      row += full ? most : 1;
    }
  });
}

int trellis_paths(const aph_trellis_paths_args& args) {
  switch (args.pair_bits) {
    case 2: search_all<2>(args); return 0;
    case 3: search_all<3>(args); return 0;
    case 4: search_all<4>(args); return 0;
    case 5: search_all<5>(args); return 0;
    case 6: search_all<6>(args); return 0;
    case 7: search_all<7>(args); return 0;
    case 8: search_all<8>(args); return 0;
    case 10: search_all<10>(args); return 0;
    case 12: search_all<12>(args); return 0;
    case 14: search_all<14>(args); return 0;
    case 16: search_all<16>(args); return 0;
    default: return fail("no two symbols of a trellis have %d bits", args.pair_bits);
  }
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_trellis_paths, aph_trellis_paths_args, trellis_paths)
