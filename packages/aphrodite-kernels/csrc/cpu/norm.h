// The norm of one vector, shared by the ops that normalise.
#pragma once

#include <cmath>

#include "floats.h"

namespace aph::APH_LEVEL {

// result = x / sqrt(mean(x²) + eps) * weight
static void normalise(const float* x, const float* weight, float* result, int64_t width,
                      float eps) {
  Floats squares = zero();
  for_lanes(width, [&](int64_t i, auto lanes) {
    const Floats a = lanes.get(x + i);
    squares = multiply_add(a, a, squares);
  });
  const float mean = sum(squares) / static_cast<float>(width);
  const Floats factor = all_floats(1.0f / std::sqrt(mean + eps));
  for_lanes(width, [&](int64_t i, auto lanes) {
    lanes.put(result + i, lanes.get(x + i) * factor * lanes.get(weight + i));
  });
}

}  // namespace aph::APH_LEVEL
