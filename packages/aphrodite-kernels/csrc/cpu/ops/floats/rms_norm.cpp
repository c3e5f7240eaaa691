// Root-mean-square norm of heads [rows, heads, width]; a plain matrix has one head.

#include "runtime.h"

#include "grain.h"
#include "norm.h"

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

int rms_norm(const aph_rms_norm_args& args) {
  const int64_t grain = grain_of(args.heads * args.width);
  parallel_for(args.runtime, args.rows, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row)
      for (int64_t head = 0; head < args.heads; ++head)
        normalise(args.x + row * args.row_stride + head * args.head_stride, args.weight,
                  args.result + (row * args.heads + head) * args.width, args.width, args.eps);
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_rms_norm, aph_rms_norm_args, rms_norm)
