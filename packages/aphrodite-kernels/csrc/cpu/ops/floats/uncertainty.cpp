// How uncertain each row of logits is: sums in float64.

#include "runtime.h"

#include "weights.h"

struct aph_uncertainty_args {
  int64_t rows;
  aph_runtime* runtime;
  const float* logits;  // [rows, width]
  int64_t width, stride;
  double* entropy;    // [rows], in nats
  double* least;      // [rows]: minus the logarithm of the largest probability
  int64_t* possible;  // [rows]: logits above -infinity
};

namespace aph::APH_LEVEL {

int uncertainty(const aph_uncertainty_args& args) {
  parallel_for(args.runtime, args.rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float* logits = args.logits + row * args.stride;
      const Peak peak = find_peak(logits, args.width);
      args.possible[row] = count_possible(logits, args.width);
      args.entropy[row] = args.least[row] = __builtin_nan("");
      if (!peak.valid) continue;
      const Weighed weighed = weigh_row(logits, args.width, peak.value, nullptr);
      args.least[row] = logarithm(weighed.total);
      args.entropy[row] = args.least[row] - weighed.mean;
    }
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_uncertainty, aph_uncertainty_args, uncertainty)
