// The likeliest token of each row of logits.

#include "runtime.h"

#include "logits.h"

struct aph_argmax_args {
  int64_t rows;
  aph_runtime* runtime;
  const float* logits;  // [rows, width]
  int64_t width, stride;
  int32_t* tokens;  // [rows]
  uint8_t* valid;   // [rows]
};

namespace aph::APH_LEVEL {

int argmax(const aph_argmax_args& args) {
  parallel_for(args.runtime, args.rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const Peak peak = find_peak(args.logits + row * args.stride, args.width);
      args.tokens[row] = static_cast<int32_t>(peak.token);
      args.valid[row] = peak.valid;
    }
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_argmax, aph_argmax_args, argmax)
