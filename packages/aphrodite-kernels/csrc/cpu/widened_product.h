// The product of float32 rows with a weight of which a few outputs are widened to float32 at a time.
#pragma once

#include "dense_product.h"

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
template <typename Widen>
static void multiply_widened_piece(const aph_product& args, const Widening& shape,
                                   const Widen& widen, int64_t begin, int64_t end, int64_t first,
                                   int64_t last, float* wide) {
  const int64_t stride = shape.run + kLanes;
  begin_with_bias(args, begin, end, first, last);
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

// widen(Wide)
template <typename Widen>
static void multiply_widened(const aph_product& args, const Widening& shape, const Widen& widen) {
  const int64_t units = kPiece / shape.unit, piece = (units ? units : 1) * shape.unit;
  const size_t bytes = shape.unit * (shape.run + kLanes) * sizeof(float);
  for_pieces(args, shape.width, piece,
             [&](int64_t begin, int64_t end, int64_t first, int64_t last, int worker) {
               float* wide = static_cast<float*>(scratch(args.runtime, worker, bytes));
               multiply_widened_piece(args, shape, widen, begin, end, first, last, wide);
             });
}

}  // namespace aph::APH_LEVEL
