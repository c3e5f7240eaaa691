// Divides each row of logits by a number, in place.

#include "runtime.h"

#include "logits.h"

struct aph_divide_args {
  int64_t rows;
  aph_runtime* runtime;
  float* logits;  // [rows, width]
  int64_t width, stride;
  const float* divisor;  // [rows]
};

namespace aph::APH_LEVEL {

int divide(const aph_divide_args& args) {
  parallel_for(args.runtime, args.rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      float* logits = args.logits + row * args.stride;
      const float divisor = args.divisor[row];
      for (int64_t i = 0; i < args.width; ++i) logits[i] /= divisor;
    }
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_divide, aph_divide_args, divide)
