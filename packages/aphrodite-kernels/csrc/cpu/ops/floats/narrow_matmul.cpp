// y = x Wᵀ (+ bias) for a weight of narrow floats, a few outputs widened at a time.

#include "runtime.h"

#include "narrow.h"
#include "widened_product.h"

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

int narrow_matmul(const aph_narrow_matmul_args& args) {
  const Widening shape{args.weight.depth, args.weight.width, kSide, kRun};
  multiply_widened(args, shape, [&](const Wide& wide) {
    for (int64_t o = 0; o < wide.outputs; ++o)
      widen_row(args.weight, wide.output + o, wide.first, wide.length, wide.to + o * wide.stride);
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_narrow_matmul, aph_narrow_matmul_args, narrow_matmul)
