// Rows of a weight of narrow floats, as float32: an embedding look-up.

#include "runtime.h"

#include "grain.h"
#include "narrow.h"

struct aph_narrow_rows_args {
  int64_t rows;
  aph_runtime* runtime;
  const int32_t* index;  // [rows]
  float* result;         // [rows, depth]
  aph_narrow weight;
  float factor;
};

namespace aph::APH_LEVEL {

int narrow_rows(const aph_narrow_rows_args& args) {
  const int64_t depth = args.weight.depth;
  for (int64_t i = 0; i < args.rows; ++i)
    if (args.index[i] < 0 || args.index[i] >= args.weight.width)
      return fail("row %d of a weight of %lld rows", args.index[i], (long long)args.weight.width);
  const Floats factor = all_floats(args.factor);
  parallel_for(args.runtime, args.rows, grain_of(depth), [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      float* row = args.result + i * depth;
      widen_row(args.weight, args.index[i], 0, depth, row);
      for_lanes(depth,
                [&](int64_t j, auto lanes) { lanes.put(row + j, lanes.get(row + j) * factor); });
    }
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_narrow_rows, aph_narrow_rows_args, narrow_rows)
