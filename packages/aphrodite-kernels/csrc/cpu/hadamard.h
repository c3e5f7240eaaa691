// The orthonormal Hadamard transform, as Sylvester's matrices have it.
#pragma once

#include <cmath>

#include "floats.h"

namespace aph::APH_LEVEL {

// Of each `size` neighbours of [length], in place; a power of two that divides the length.
static void transform(float* x, int64_t length, int64_t size) {
  for (int64_t step = 1; step < size; step *= 2)
    for (int64_t pair = 0; pair < length; pair += 2 * step)
      for (int64_t i = pair; i < pair + step; ++i) {
        const float first = x[i], second = x[i + step];
        x[i] = first + second;
        x[i + step] = first - second;
      }
  const Floats scale = all_floats(1.0f / std::sqrt(static_cast<float>(size)));
  for_lanes(length, [&](int64_t i, auto lanes) { lanes.put(x + i, lanes.get(x + i) * scale); });
}

}  // namespace aph::APH_LEVEL
