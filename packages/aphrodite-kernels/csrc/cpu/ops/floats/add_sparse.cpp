// result += x Sᵀ for a matrix S of few numbers, kept row after row.

#include "runtime.h"

#include "floats.h"
#include "grain.h"

struct aph_add_sparse_args {
  int64_t rows;
  aph_runtime* runtime;
  const float* x;          // [rows, K]
  const int32_t* starts;   // [width + 1]
  const int32_t* columns;  // [Z]
  const float* values;     // [Z]
  float* result;           // [rows, width]
  int64_t x_stride, width;
};

namespace aph::APH_LEVEL {

int add_sparse(const aph_add_sparse_args& args) {
  const int64_t sums = args.rows * args.width;
  const int64_t each = args.width ? args.starts[args.width] / args.width : 0;
  parallel_for(args.runtime, sums, grain_of(1 + each), [&](int64_t begin, int64_t end, int) {
    for (int64_t at = begin; at < end; ++at) {
      const int64_t row = at / args.width, output = at % args.width;
      const float* x = args.x + row * args.x_stride;
      float total = 0.0f;
      for (int64_t i = args.starts[output]; i < args.starts[output + 1]; ++i)
        total += args.values[i] * x[args.columns[i]];
      args.result[at] += total;
    }
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_add_sparse, aph_add_sparse_args, add_sparse)
