// Activations as int8: what the quantised products multiply with.
//
// Blocks of 32 along K have one scale, their largest magnitude over 127.
#pragma once

#include "integers.h"
#include "runtime.h"
#include "tile_format.h"

namespace aph::APH_LEVEL {

struct QuantizedRows {
  int64_t blocks;         // per row
  float* scale;           // [rows, blocks]
  float* sum;             // [rows, blocks]: scale times the sum of the codes
  int32_t* minus;         // [rows, blocks]: minus the sum of the codes
  int32_t* minus_halves;  // [rows, 2 blocks]: the same of half blocks
  int8_t* codes;          // [rows, 32 blocks]
};

// Sixteen inputs from `first` on, or those that `columns` names there.
APH_INLINE Floats inputs(const float* x, const int32_t* columns, int64_t first) {
  if (!columns) return load(x + first);
  alignas(64) float gathered[kLanes];
  for (int i = 0; i < kLanes; ++i) gathered[i] = x[columns[first + i]];
  return load(gathered);
}

// Below 2^-100 a block counts as zero. A NaN or an infinity makes its whole block NaN.
static void quantize_row(const float* x, const int32_t* columns, const QuantizedRows& to,
                         int64_t row) {
  const Floats shift = all_floats(12582912.0f);  // 1.5 * 2^23 moves the nearest integer to the end
  const Ints magnitude = all_ints(0x7fffffff);
  for (int64_t b = 0, at = row * to.blocks; b < to.blocks; ++b, ++at) {
    const Floats low = inputs(x, columns, b * kBlock);
    const Floats high = inputs(x, columns, b * kBlock + kLanes);
    // Magnitudes order like their bits, NaN above infinity.
    const int32_t bits = largest(largest(bits_of(low) & magnitude, bits_of(high) & magnitude));
    const float peak = float_of(bits >= 0x7f800000 ? 0x7fc00000 : bits);
    const bool is_zero = bits < 0x0d800000;
    const Floats inverse = all_floats(is_zero ? 0.0f : 127.0f / peak);
    const Ints first = bits_of(low * inverse + shift) - bits_of(shift);
    const Ints second = bits_of(high * inverse + shift) - bits_of(shift);
    store_low_bytes(to.codes + at * kBlock, first);
    store_low_bytes(to.codes + at * kBlock + 16, second);
    const float scale = is_zero ? 0.0f : peak / 127.0f;
    const int32_t low_sum = sum(first), high_sum = sum(second);
    to.scale[at] = scale;
    to.sum[at] = scale * static_cast<float>(low_sum + high_sum);
    to.minus[at] = -(low_sum + high_sum);
    to.minus_halves[2 * at] = -low_sum;
    to.minus_halves[2 * at + 1] = -high_sum;
  }
}

// Rows of x [rows, 32 blocks] as int8, in the op's scratch space; `columns` is their order, or null.
static QuantizedRows quantize_rows(aph_runtime* runtime, const float* x, int64_t stride,
                                   const int32_t* columns, int64_t rows, int64_t blocks) {
  const int64_t count = rows * blocks;
  auto* memory = static_cast<uint8_t*>(scratch(runtime, -1, count * (5 * 4 + kBlock)));
  auto* scale = reinterpret_cast<float*>(memory);
  auto* minus = reinterpret_cast<int32_t*>(scale + 2 * count);
  auto* codes = reinterpret_cast<int8_t*>(minus + 3 * count);
  const QuantizedRows to{blocks, scale, scale + count, minus, minus + count, codes};
  // A hand-off to the other threads costs more than 512 blocks.
  parallel_for(runtime, rows, 1 + 512 / blocks, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) quantize_row(x + row * stride, columns, to, row);
  });
  return to;
}

}  // namespace aph::APH_LEVEL
