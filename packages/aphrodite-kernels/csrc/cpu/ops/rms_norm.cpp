// Root-mean-square norm of heads [rows, heads, width]; a plain matrix has one head.

#include "runtime.h"

#include <cmath>

#include "floats.h"

struct aph_rms_norm_args {
  int64_t rows;
  aph_runtime* runtime;
  const float* x;       // [rows, heads, width]
  const float* weight;  // [width]
  float* result;        // [rows, heads, width], contiguous
  int64_t heads, width;
  int64_t row_stride, head_stride;  // of x
  float eps;
};

namespace aph::APH_LEVEL {

static void normalise(const float* x, const float* weight, float* result, int64_t width, float eps) {
  Floats squares = zero();
  for_lanes(width, [&](int64_t i, auto lanes) {
    const Floats a = lanes.get(x + i);
    squares = multiply_add(a, a, squares);
  });
  const Floats factor = all_floats(1.0f / std::sqrt(sum(squares) / static_cast<float>(width) + eps));
  for_lanes(width, [&](int64_t i, auto lanes) {
    lanes.put(result + i, lanes.get(x + i) * factor * lanes.get(weight + i));
  });
}

int rms_norm(const aph_rms_norm_args& args) {
  const int64_t grain = 1 + 8192 / (args.heads * args.width);
  parallel_for(args.runtime, args.rows, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row)
      for (int64_t head = 0; head < args.heads; ++head)
        normalise(args.x + row * args.row_stride + head * args.head_stride, args.weight,
                  args.result + (row * args.heads + head) * args.width, args.width, args.eps);
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_OP(aph_rms_norm, aph_rms_norm_args, rms_norm)
