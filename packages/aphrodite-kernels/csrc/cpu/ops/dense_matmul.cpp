// y = x Wᵀ (+ bias) for an unquantised weight, row-major as it lies in its file.
//
// Weights are widened to float32 in registers.

#include "runtime.h"

#include "dense_product.h"
#include "numbers.h"

struct aph_dense_matmul_args {
  int64_t rows;
  aph_runtime* runtime;
  const float* x;      // [rows, depth]
  const void* weight;  // [width, depth]
  const float* bias;   // [width], or null
  float* result;       // [rows, width]
  int64_t x_stride, weight_stride, result_stride;
  int64_t depth, width;
  int32_t number;
};

namespace aph::APH_LEVEL {

// Rows [begin, end) by outputs [first, last).
template <typename Stored>
static void multiply_piece(const aph_dense_matmul_args& args, int64_t begin, int64_t end,
                           int64_t first, int64_t last) {
  for (int64_t row = begin; row < end; ++row)
    for (int64_t o = first; o < last; ++o)
      args.result[row * args.result_stride + o] = args.bias ? args.bias[o] : 0.0f;
  for (int64_t i = 0; i < args.depth; i += kRun) {
    const int64_t length = args.depth - i < kRun ? args.depth - i : kRun;
    for (int64_t o = first; o < last;) {
      const Stored* weight = static_cast<const Stored*>(args.weight) + o * args.weight_stride + i;
      const Patch<Stored> patch{args.x + begin * args.x_stride + i, weight,
                                args.result + begin * args.result_stride + o, args.x_stride,
                                args.weight_stride, args.result_stride, length};
      const bool whole = last - o >= kSide;
      if (whole) multiply_rows<kSide>(patch, end - begin);
      else multiply_rows<1>(patch, end - begin);
      o += whole ? kSide : 1;
    }
  }
}

template <typename Stored>
static void multiply_all(const aph_dense_matmul_args& args) {
  const int64_t pieces = (args.width + kPiece - 1) / kPiece;
  const int64_t row_blocks = (args.rows + kRowBlock - 1) / kRowBlock;
  parallel_for(args.runtime, row_blocks * pieces, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / pieces * kRowBlock, first = i % pieces * kPiece;
      const int64_t rows = args.rows - row < kRowBlock ? args.rows - row : kRowBlock;
      const int64_t outputs = args.width - first < kPiece ? args.width - first : kPiece;
      multiply_piece<Stored>(args, row, row + rows, first, first + outputs);
    }
  });
}

int dense_matmul(const aph_dense_matmul_args& args) {
  return with_number(args.number, [&](auto stored) {
    multiply_all<decltype(stored)>(args);
    return 0;
  });
}

}  // namespace aph::APH_LEVEL

APH_OP(aph_dense_matmul, aph_dense_matmul_args, dense_matmul)
