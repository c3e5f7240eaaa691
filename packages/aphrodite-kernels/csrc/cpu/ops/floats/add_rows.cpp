// result += other, and += a number for each row.

#include "runtime.h"

#include "floats.h"
#include "grain.h"

struct aph_add_rows_args {
  int64_t rows;
  aph_runtime* runtime;
  float* result;        // [rows, width]
  const float* other;   // [rows, width], or null
  const float* number;  // [rows], or null
  int64_t width;
};

namespace aph::APH_LEVEL {

int add_rows(const aph_add_rows_args& args) {
  parallel_for(args.runtime, args.rows, grain_of(args.width), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      float* to = args.result + row * args.width;
      const Floats number = all_floats(args.number ? args.number[row] : 0.0f);
      for_lanes(args.width, [&](int64_t i, auto lanes) {
        Floats total = lanes.get(to + i) + number;
        if (args.other) total = total + lanes.get(args.other + row * args.width + i);
        lanes.put(to + i, total);
      });
    }
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_add_rows, aph_add_rows_args, add_rows)
