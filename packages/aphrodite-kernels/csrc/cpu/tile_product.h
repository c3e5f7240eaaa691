// The product of int8 rows with one quantised tile.
//
// Dot products of a block are exact integers; blocks are summed in float32 in the order of K. Any
// number of rows runs the same operations in the same order for each row, so that a row's result
// does not depend on its company.
#pragma once

#include "quantized_rows.h"
#include "tiles.h"

namespace aph::APH_LEVEL {

// How a format's blocks are multiplied.
struct Sort {
  bool has_minimum;
  int halves;
  Codes range;
};

// body(r) for each row, written out so that accumulators stay in registers.
template <int count, typename Body>
APH_INLINE void for_rows(const Body& body) {
#pragma GCC unroll 8
  for (int r = 0; r < count; ++r) body(r);
}

// dot[r] = offset part + codes of block or half block `part` times row r's
template <Sort sort, int count>
APH_INLINE void dot_part(const Strip& strip, int part, const int8_t* codes, const int32_t* minus,
                         int64_t blocks, Ints (&dot)[count]) {
  constexpr int vectors = kVectors / sort.halves;
  for_rows<count>([&](int r) {
    if constexpr (sort.has_minimum) dot[r] = all_ints(0);
    else dot[r] = shift_left(all_ints(minus[r * blocks * sort.halves + part]), strip.offset_log2);
  });
  const uint8_t* u = strip.codes + part * vectors * 64;
  const int8_t* x = codes + part * vectors * 4;
  const uint8_t* ahead = strip.ahead + part * strip.block_bytes / sort.halves;
#pragma GCC unroll 8
  for (int g = 0; g < vectors; ++g) {
    const Bytes outputs = load_bytes(u + g * 64);
    // One or two rows leave room to run ahead out of order; more must call the next strip early:
    // 8 rows by 3072 outputs of Q4_1 then take 0.19 instead of 0.25 ms (Zen 4).
    if (count > 2) __builtin_prefetch(ahead + g * strip.block_bytes / kVectors, 0, 2);
    for_rows<count>([&](int r) {
      dot[r] = dot_four<sort.range>(dot[r], outputs, load_four(x + r * blocks * kBlock + g * 4));
    });
  }
}

// sums [count, 16] += rows `row` … `row + count - 1` times the strip.
template <Sort sort, int count>
static void multiply(const Strip& strip, const QuantizedRows& x, int64_t row, float* sums) {
  const int64_t blocks = x.blocks, at = row * blocks + strip.first;
  const int8_t* codes = x.codes + at * kBlock;
  const float *scale = x.scale + at, *sum = x.sum + at;
  const int32_t* minus = sort.halves == 2 ? x.minus_halves + 2 * at : x.minus + at;
  Floats total[count];
  for_rows<count>([&](int r) { total[r] = load(sums + r * kTile); });
  for (int part = 0; part < strip.blocks * sort.halves; ++part) {
    const int b = part / sort.halves;
    Ints dot[count];
    dot_part<sort>(strip, part, codes, minus, blocks, dot);
    const Floats factor = load(strip.scale + part * kTile);
    for_rows<count>([&](int r) {
      const Floats both = factor * all_floats(scale[r * blocks + b]);
      total[r] = multiply_add(to_floats(dot[r]), both, total[r]);
    });
    if constexpr (sort.has_minimum) {
      const Floats minimum = load(strip.minimum + part * kTile);
      for_rows<count>([&](int r) {
        float of_part = sum[r * blocks + b];
        if constexpr (sort.halves == 2)
          of_part = scale[r * blocks + b] * -static_cast<float>(minus[2 * r * blocks + part]);
        total[r] = multiply_add(minimum, all_floats(of_part), total[r]);
      });
    }
  }
  for_rows<count>([&](int r) { store(sums + r * kTile, total[r]); });
}

using Multiply = void (*)(const Strip&, const QuantizedRows&, int64_t row, float* sums);

// table[count] multiplies `count` rows.
template <Sort sort, int count = kMaxRows>
static void fill(Multiply (&table)[kMaxRows + 1]) {
  if constexpr (count > 0) {
    table[count] = multiply<sort, count>;
    fill<sort, count - 1>(table);
  }
}

template <int halves>
static void fill(const TileFormat& format, Multiply (&table)[kMaxRows + 1]) {
  if (format.has_minimum() && format.full_range()) fill<Sort{true, halves, Codes::kFull}>(table);
  else if (format.has_minimum()) fill<Sort{true, halves, Codes::kSmall}>(table);
  else if (format.full_range()) fill<Sort{false, halves, Codes::kFull}>(table);
  else fill<Sort{false, halves, Codes::kSmall}>(table);
}

static void products_of(const TileFormat& format, Multiply (&table)[kMaxRows + 1]) {
  if (format.halves() == 2) fill<2>(format, table);
  else fill<1>(format, table);
}

}  // namespace aph::APH_LEVEL
