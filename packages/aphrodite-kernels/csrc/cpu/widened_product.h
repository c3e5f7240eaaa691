// The product of float32 rows with a weight of which a few outputs are widened to float32 at a time.
#pragma once

#include "dense_product.h"
#include "runtime.h"

namespace aph::APH_LEVEL {

struct Widening {
  int64_t depth, width;
  int64_t unit;  // outputs that are widened together
  int64_t run;   // inputs at a time
};

// Where a unit's run of inputs is to lie; a row has room for kLanes more numbers.
struct Wide {
  int64_t output, outputs;  // the last of them may be padding
  int64_t first, length;    // inputs
  float* to;
  int64_t stride;
};

// Rows [begin, end) by outputs [first, last).
template <typename Args, typename Widen>
static void multiply_widened_piece(const Args& args, const Widening& shape, const Widen& widen,
                                   int64_t begin, int64_t end, int64_t first, int64_t last,
                                   float* wide) {
  const int64_t stride = shape.run + kLanes;
  for (int64_t row = begin; row < end; ++row)
    for (int64_t o = first; o < last; ++o)
      args.result[row * args.result_stride + o] = args.bias ? args.bias[o] : 0.0f;
  for (int64_t i = 0; i < shape.depth; i += shape.run) {
    const int64_t left = shape.depth - i, length = left < shape.run ? left : shape.run;
    for (int64_t unit = first; unit < last; unit += shape.unit) {
      const int64_t count = last - unit < shape.unit ? last - unit : shape.unit;
      widen(Wide{unit, count, i, length, wide, stride});
      for (int64_t k = 0; k < count;) {
        const int64_t o = unit + k;
        const Patch<float> patch{args.x + begin * args.x_stride + i, wide + k * stride,
                                 args.result + begin * args.result_stride + o, args.x_stride,
                                 stride, args.result_stride, length};
        const bool side = count - k >= kSide;
        if (side) multiply_rows<kSide>(patch, end - begin);
        else multiply_rows<1>(patch, end - begin);
        k += side ? kSide : 1;
      }
    }
  }
}

// args: rows, runtime, x, bias, result and strides of an op; widen(Wide).
template <typename Args, typename Widen>
static void multiply_widened(const Args& args, const Widening& shape, const Widen& widen) {
  const int64_t units = kPiece / shape.unit, piece = (units ? units : 1) * shape.unit;
  const int64_t pieces = (shape.width + piece - 1) / piece;
  const int64_t row_blocks = (args.rows + kRowBlock - 1) / kRowBlock;
  const size_t bytes = shape.unit * (shape.run + kLanes) * sizeof(float);
  parallel_for(args.runtime, row_blocks * pieces, 1, [&](int64_t begin, int64_t end, int worker) {
    float* wide = static_cast<float*>(scratch(args.runtime, worker, bytes));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / pieces * kRowBlock, first = i % pieces * piece;
      const int64_t rows = args.rows - row < kRowBlock ? args.rows - row : kRowBlock;
      const int64_t outputs = shape.width - first < piece ? shape.width - first : piece;
      multiply_widened_piece(args, shape, widen, row, row + rows, first, first + outputs, wide);
    }
  });
}

}  // namespace aph::APH_LEVEL
