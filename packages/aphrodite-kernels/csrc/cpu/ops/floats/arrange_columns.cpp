// Rows as runs of columns are multiplied: in their order, scaled; and what a shift of columns adds.

#include "runtime.h"

#include "floats.h"

struct aph_arrange_columns_args {
  int64_t rows;
  aph_runtime* runtime;
  const float* x;         // [rows, width]
  const int64_t* columns; // [width], or null: in order
  const float* scale;     // [width], of x's columns, or null
  const float* shift;     // [width], of x's columns, or null
  float* result;          // [rows, width]
  float* shifted;         // [rows]: x times the shift; not written without one
  int64_t x_stride, width;
};

namespace aph::APH_LEVEL {

static void arrange_row(const aph_arrange_columns_args& args, const float* x, float* to) {
  for_lanes(args.width, [&](int64_t i, auto lanes) {
    alignas(64) float found[kLanes] = {};
    for (int64_t k = i; k < i + kLanes && k < args.width; ++k) {
      const int64_t column = args.columns ? args.columns[k] : k;
      found[k - i] = args.scale ? x[column] * args.scale[column] : x[column];
    }
    lanes.put(to + i, load(found));
  });
}

int arrange_columns(const aph_arrange_columns_args& args) {
  parallel_for(args.runtime, args.rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float* x = args.x + row * args.x_stride;
      arrange_row(args, x, args.result + row * args.width);
      if (!args.shift) continue;
      Floats total = zero();
      for_lanes(args.width, [&](int64_t i, auto lanes) {
        total = multiply_add(lanes.get(x + i), lanes.get(args.shift + i), total);
      });
      args.shifted[row] = sum(total);
    }
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_arrange_columns, aph_arrange_columns_args, arrange_columns)
