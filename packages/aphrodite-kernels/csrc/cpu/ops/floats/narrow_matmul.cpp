// y = x Wᵀ (+ bias) for a weight of narrow floats, a few outputs widened at a time.

#include "runtime.h"

#include "dense_product.h"
#include "narrow.h"

struct aph_narrow_matmul_args {
  int64_t rows;
  aph_runtime* runtime;
  const float* x;     // [rows, depth]
  const float* bias;  // [width], or null
  float* result;      // [rows, width]
  int64_t x_stride, result_stride;
  aph_narrow weight;
};

namespace aph::APH_LEVEL {

// Rows [begin, end) by outputs [first, last).
static void multiply_piece(const aph_narrow_matmul_args& args, int64_t begin, int64_t end,
                           int64_t first, int64_t last) {
  alignas(64) float wide[kSide * kRun];
  for (int64_t row = begin; row < end; ++row)
    for (int64_t o = first; o < last; ++o)
      args.result[row * args.result_stride + o] = args.bias ? args.bias[o] : 0.0f;
  for (int64_t i = 0; i < args.weight.depth; i += kRun) {
    const int64_t left = args.weight.depth - i, length = left < kRun ? left : kRun;
    for (int64_t o = first; o < last;) {
      const int64_t count = last - o >= kSide ? kSide : 1;
      for (int64_t k = 0; k < count; ++k)
        widen_row(args.weight, o + k, i, length, wide + k * kRun);
      const Patch<float> patch{args.x + begin * args.x_stride + i, wide,
                               args.result + begin * args.result_stride + o, args.x_stride, kRun,
                               args.result_stride, length};
      if (count == kSide) multiply_rows<kSide>(patch, end - begin);
      else multiply_rows<1>(patch, end - begin);
      o += count;
    }
  }
}

int narrow_matmul(const aph_narrow_matmul_args& args) {
  const int64_t width = args.weight.width;
  const int64_t pieces = (width + kPiece - 1) / kPiece;
  const int64_t row_blocks = (args.rows + kRowBlock - 1) / kRowBlock;
  parallel_for(args.runtime, row_blocks * pieces, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / pieces * kRowBlock, first = i % pieces * kPiece;
      const int64_t rows = args.rows - row < kRowBlock ? args.rows - row : kRowBlock;
      const int64_t outputs = width - first < kPiece ? width - first : kPiece;
      multiply_piece(args, row, row + rows, first, first + outputs);
    }
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_narrow_matmul, aph_narrow_matmul_args, narrow_matmul)
