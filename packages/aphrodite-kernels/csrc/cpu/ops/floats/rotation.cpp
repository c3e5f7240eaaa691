// y = after * (base ⊗ H) (before * x) + bias, rows padded to the transform and cut after it.

#include "runtime.h"

#include "hadamard.h"

struct aph_rotation_args {
  int64_t rows;
  aph_runtime* runtime;
  const float* x;       // [rows, from]
  const float* before;  // [from], or null
  const float* base;    // [order, order], or null: 1
  const float* after;   // [to], or null
  const float* bias;    // [to], or null
  float* result;        // [rows, to]
  int64_t x_stride;
  int64_t from, inner, to;
  int64_t order;        // inner / order is a power of two
  int64_t across, down;  // strides of the base
};

namespace aph::APH_LEVEL {

// mixed = (base ⊗ 1) turned, both [order, inner / order].
static void mix(const aph_rotation_args& args, const float* turned, float* mixed) {
  const int64_t size = args.inner / args.order;
  for (int64_t i = 0; i < args.order; ++i)
    for_lanes(size, [&](int64_t k, auto lanes) {
      Floats total = zero();
      for (int64_t j = 0; j < args.order; ++j)
        total = multiply_add(all_floats(args.base[i * args.down + j * args.across]),
                             lanes.get(turned + j * size + k), total);
      lanes.put(mixed + i * size + k, total);
    });
}

static void rotate_one(const aph_rotation_args& args, const float* x, float* memory, float* to) {
  float* turned = memory;
  for (int64_t i = args.from; i < args.inner; ++i) turned[i] = 0.0f;
  for_lanes(args.from, [&](int64_t i, auto lanes) {
    const Floats number = lanes.get(x + i);
    lanes.put(turned + i, args.before ? number * lanes.get(args.before + i) : number);
  });
  transform(turned, args.inner, args.inner / args.order);
  if (args.base) {
    mix(args, turned, memory + args.inner);
    turned = memory + args.inner;
  }
  for_lanes(args.to, [&](int64_t i, auto lanes) {
    Floats number = lanes.get(turned + i);
    if (args.after) number = number * lanes.get(args.after + i);
    lanes.put(to + i, args.bias ? number + lanes.get(args.bias + i) : number);
  });
}

int rotation(const aph_rotation_args& args) {
  const size_t bytes = 2 * args.inner * sizeof(float);
  parallel_for(args.runtime, args.rows, 1, [&](int64_t begin, int64_t end, int worker) {
    float* memory = static_cast<float*>(scratch(args.runtime, worker, bytes));
    for (int64_t row = begin; row < end; ++row)
      rotate_one(args, args.x + row * args.x_stride, memory, args.result + row * args.to);
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_rotation, aph_rotation_args, rotation)
