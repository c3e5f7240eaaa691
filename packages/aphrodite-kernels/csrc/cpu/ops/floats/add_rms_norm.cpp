// The sum of two matrices, and its root-mean-square norm.

#include "runtime.h"

#include "grain.h"
#include "norm.h"

struct aph_add_rms_norm_args {
  int64_t rows;
  aph_runtime* runtime;
  const float* x;         // [rows, width]
  const float* residual;  // [rows, width]
  const float* weight;    // [width]
  float* result;          // [rows, width], contiguous: the norm
  float* total;           // [rows, width], contiguous: the sum
  int64_t width, x_stride, residual_stride;
  float eps;
};

namespace aph::APH_LEVEL {

int add_rms_norm(const aph_add_rms_norm_args& args) {
  parallel_for(args.runtime, args.rows, grain_of(args.width), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float* x = args.x + row * args.x_stride;
      const float* residual = args.residual + row * args.residual_stride;
      float* total = args.total + row * args.width;
      for_lanes(args.width, [&](int64_t i, auto lanes) {
        lanes.put(total + i, lanes.get(x + i) + lanes.get(residual + i));
      });
      normalise(total, args.weight, args.result + row * args.width, args.width, args.eps);
    }
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_add_rms_norm, aph_add_rms_norm_args, add_rms_norm)
