// The paths through a trellis of 2^16 states that come nearest to given numbers (Viterbi's search).
//
// A path is a ring of 256 symbols of `bits` bits; the state of a symbol is the 16 bits that end with
// it. What goes on from a state depends on its lowest 16 - bits bits, its suffix, so that of all
// states with one suffix the best alone survives. With p the highest bits of a state,
//
//   cost'[u] = min over p of cost[(p, u) >> bits] + (target - number[(p, u)])²
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
  int32_t bits;
};

namespace aph::APH_LEVEL {

constexpr int kRing = 256;
constexpr int64_t kStates = 1 << 16;
constexpr float kNever = 1e30f;

// Rings that are searched together, so that a number is read once for all of them.
static constexpr int together(int bits) { return bits == 1 ? 1 : bits == 2 ? 2 : 4; }
// Numbers on either side of the seam by which it is settled.
static constexpr int reach(int bits) { return bits < 3 ? 96 : 48; }

template <int bits, int count>
struct Search {
  static constexpr int64_t kSuffixes = kStates >> bits;
  static constexpr int64_t kPadded = kSuffixes + kLanes;
  static constexpr size_t kBytes = count * (2 * kPadded * sizeof(float) + kRing * kSuffixes);

  const float* numbers;  // [suffixes / 16, 2^bits, 16]
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

  // From costs[0] to costs[1], which change places.
  void take(int step, int place) {
    Floats target[count];
    for (int c = 0; c < count; ++c) target[c] = all_floats(targets[c * kRing + place]);
    const float* number = numbers;
    for (int64_t u = 0; u < kSuffixes; u += kLanes) {
      const float* before = costs[0] + (u >> bits);
      Floats least[count];
      for (int c = 0; c < count; ++c) least[c] = all_floats(2 * kNever);
#pragma GCC unroll 4
      for (int p = 0; p < 1 << bits; ++p, number += kLanes, before += kSuffixes >> bits) {
        const Floats value = load(number);
        for (int c = 0; c < count; ++c) {
          const Floats lost = target[c] - value;
          const Floats cost = multiply_add(lost, lost, repeated<bits>(before + c * kPadded));
          least[c] = smallest(least[c], marked<bits>(cost, p));
        }
      }
      for (int c = 0; c < count; ++c)
        store_apart<bits>(least[c], origin(c, step) + u, costs[1] + c * kPadded + u);
    }
    float* const kept = costs[0];
    costs[0] = costs[1];
    costs[1] = kept;
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

  // The suffix before a step that ends in suffix u.
  int64_t back(int ring, int step, int64_t u) const {
    return (origin(ring, step)[u] * kSuffixes + u) >> bits;
  }

  void run(uint8_t* symbols) {
    constexpr int half = reach(bits);
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
        symbols[c * kRing + step] = static_cast<uint8_t>(u & ((1 << bits) - 1));
        u = back(c, static_cast<int>(step), u);
      }
  }
};

// In the order in which the search reads them.
template <int bits>
static float* arranged(const aph_trellis_paths_args& args) {
  constexpr int64_t suffixes = kStates >> bits;
  float* arranged = static_cast<float*>(scratch(args.runtime, -1, kStates * sizeof(float)));
  for (int64_t u = 0; u < suffixes; u += kLanes)
    for (int64_t p = 0; p < 1 << bits; ++p)
      store(arranged + (u << bits) + p * kLanes, load(args.numbers + p * suffixes + u));
  return arranged;
}

template <int bits>
static void search_all(const aph_trellis_paths_args& args) {
  constexpr int most = together(bits);
  const float* numbers = arranged<bits>(args);
  parallel_for(args.runtime, args.rows, most, [&](int64_t begin, int64_t end, int worker) {
    void* memory = scratch(args.runtime, worker, Search<bits, most>::kBytes);
    for (int64_t row = begin; row < end;) {
      const float* targets = args.targets + row * kRing;
      uint8_t* symbols = args.symbols + row * kRing;
      const bool full = end - row >= most;
      if (full) Search<bits, most>(numbers, targets, memory).run(symbols);
      else Search<bits, 1>(numbers, targets, memory).run(symbols);
      row += full ? most : 1;
    }
  });
}

int trellis_paths(const aph_trellis_paths_args& args) {
  switch (args.bits) {
    case 1: search_all<1>(args); return 0;
    case 2: search_all<2>(args); return 0;
    case 3: search_all<3>(args); return 0;
    case 4: search_all<4>(args); return 0;
    case 5: search_all<5>(args); return 0;
    case 6: search_all<6>(args); return 0;
    case 7: search_all<7>(args); return 0;
    case 8: search_all<8>(args); return 0;
    default: return fail("symbols of a trellis have 1 to 8 bits, not %d", args.bits);
  }
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_trellis_paths, aph_trellis_paths_args, trellis_paths)
