// activation(gate) * up; both activations are x times a sigmoid.

#include "runtime.h"

#include "floats.h"
#include "grain.h"

struct aph_gated_args {
  int64_t rows;
  aph_runtime* runtime;
  const float* gate;  // [rows, width]
  const float* up;    // [rows, width]
  float* result;      // [rows, width], contiguous
  int64_t width, gate_stride, up_stride;
  int32_t activation;  // 0: silu, 1: gelu by tanh
};

namespace aph::APH_LEVEL {

APH_INLINE Floats silu(Floats x) { return x * sigmoid(x); }

// 0.5 x (1 + tanh(u)) = x sigmoid(2u) with u = sqrt(2 / pi) (x + 0.044715 x³)
APH_INLINE Floats gelu_tanh(Floats x) {
  const Floats cubic = multiply_add(x * x, all_floats(0.044715f), all_floats(1.0f));
  return x * sigmoid(x * cubic * all_floats(1.5957691216f));
}

template <typename Activate>
static void gate_rows(const aph_gated_args& args, const Activate& activate) {
  const int64_t grain = grain_of(4 * args.width);
  parallel_for(args.runtime, args.rows, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float* gate = args.gate + row * args.gate_stride;
      const float* up = args.up + row * args.up_stride;
      float* result = args.result + row * args.width;
      for_lanes(args.width, [&](int64_t i, auto lanes) {
        lanes.put(result + i, activate(lanes.get(gate + i)) * lanes.get(up + i));
      });
    }
  });
}

int gated(const aph_gated_args& args) {
  if (args.activation == 0)
    gate_rows(args, [](Floats x) { return silu(x); });
  else
    gate_rows(args, [](Floats x) { return gelu_tanh(x); });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_gated, aph_gated_args, gated)
