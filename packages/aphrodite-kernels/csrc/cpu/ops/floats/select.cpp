// Gathers rows.

#include "runtime.h"

#include <cstring>

#include "grain.h"

struct aph_select_args {
  int64_t rows;  // of the index
  aph_runtime* runtime;
  const float* x;        // [x_rows, width]
  const int64_t* index;  // [rows]
  float* result;         // [rows, width], contiguous
  int64_t x_rows, width, x_stride;
};

namespace aph::APH_LEVEL {

int select(const aph_select_args& args) {
  for (int64_t row = 0; row < args.rows; ++row)
    if (args.index[row] < 0 || args.index[row] >= args.x_rows)
      return fail("row %lld of %lld does not exist", static_cast<long long>(args.index[row]),
                  static_cast<long long>(args.x_rows));
  parallel_for(args.runtime, args.rows, grain_of(args.width), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row)
      std::memcpy(args.result + row * args.width, args.x + args.index[row] * args.x_stride,
                  args.width * sizeof(float));
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_select, aph_select_args, select)
