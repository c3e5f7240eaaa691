// The product of float32 rows with rows of a weight that are as long as they.
//
// Each result is summed in 16 lanes along K, across the lanes at the end of every run of kRun inputs,
// and over the runs: in this order for any number of rows, so that a row's result does not depend on
// its company.
#pragma once

#include "floats.h"
#include "product.h"

namespace aph::APH_LEVEL {

#if defined(__AVX512BW__)
constexpr int kSide = 4;  // rows and outputs at a time: 16 accumulators
#else
constexpr int kSide = 2;
#endif
constexpr int64_t kRun = 2048;
constexpr int64_t kRowBlock = 64;  // their run of inputs stays in the second-level cache
constexpr int64_t kPiece = 32;     // outputs

// body(begin, end, first, last, worker) for rows [begin, end) by outputs [first, last), which are a
// block of rows by a piece of the width.
template <typename Body>
static void for_pieces(const aph_product& args, int64_t width, int64_t piece, const Body& body) {
  const int64_t pieces = (width + piece - 1) / piece;
  const int64_t row_blocks = (args.rows + kRowBlock - 1) / kRowBlock;
  parallel_for(args.runtime, row_blocks * pieces, 1, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / pieces * kRowBlock, first = i % pieces * piece;
      const int64_t rows = args.rows - row < kRowBlock ? args.rows - row : kRowBlock;
      const int64_t outputs = width - first < piece ? width - first : piece;
      body(row, row + rows, first, first + outputs, worker);
    }
  });
}

// result = bias, in rows [begin, end) by outputs [first, last).
APH_INLINE void begin_with_bias(const aph_product& args, int64_t begin, int64_t end, int64_t first,
                                int64_t last) {
  for (int64_t row = begin; row < end; ++row)
    for (int64_t o = first; o < last; ++o)
      args.result[row * args.result_stride + o] = args.bias ? args.bias[o] : 0.0f;
}

// A run of inputs of a few rows and outputs.
template <typename Stored>
struct Patch {
  const float* x;
  const Stored* weight;
  float* result;
  int64_t x_stride, weight_stride, result_stride;
  int64_t length;
};

// The sums of sixteen vectors, each in the order of sum().
APH_INLINE Floats sums(Floats (&vectors)[kLanes]) {
  transpose(vectors);
  for (int half = kLanes / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) vectors[i] = vectors[i] + vectors[i + half];
  return vectors[0];
}

// result [rows, outputs] += the vectors' sums.
template <int rows, int outputs>
APH_INLINE void add_sums(Floats (&total)[rows * outputs], float* result, int64_t stride) {
  float across[rows * outputs];
  if constexpr (rows * outputs == kLanes) store(across, sums(total));
  else for (int i = 0; i < rows * outputs; ++i) across[i] = sum(total[i]);
  for (int r = 0; r < rows; ++r)
    for (int o = 0; o < outputs; ++o) result[r * stride + o] += across[r * outputs + o];
}

// result [rows, outputs] += the products of the patch.
template <int rows, int outputs, typename Stored>
static void multiply(const Patch<Stored>& patch) {
  Floats total[rows * outputs];
  for (Floats& one : total) one = zero();
  for_lanes(patch.length, [&](int64_t i, auto lanes) {
    Floats w[outputs];
    for (int o = 0; o < outputs; ++o) w[o] = lanes.get(patch.weight + o * patch.weight_stride + i);
    for (int r = 0; r < rows; ++r) {
      const Floats x = lanes.get(patch.x + r * patch.x_stride + i);
      for (int o = 0; o < outputs; ++o)
        total[r * outputs + o] = multiply_add(w[o], x, total[r * outputs + o]);
    }
  });
  add_sums<rows, outputs>(total, patch.result, patch.result_stride);
}

// The same for any number of rows.
template <int outputs, typename Stored>
static void multiply_rows(Patch<Stored> patch, int64_t rows) {
  while (rows > 0) {
    const int64_t count = rows < kSide ? rows : kSide;
    if (count == 1) multiply<1, outputs>(patch);
    else if (count == 2) multiply<2, outputs>(patch);
    else if constexpr (kSide == 4) {
      if (count == 3) multiply<3, outputs>(patch);
      else multiply<4, outputs>(patch);
    }
    rows -= count;
    patch.x += count * patch.x_stride;
    patch.result += count * patch.result_stride;
  }
}

}  // namespace aph::APH_LEVEL
