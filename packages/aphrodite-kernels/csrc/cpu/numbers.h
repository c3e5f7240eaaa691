// The floating types that weights and caches are stored in, as Python numbers them.
#pragma once

#include "floats.h"

namespace aph::APH_LEVEL {

enum Number : int32_t { kFloat, kHalf, kBfloat };

// body(value of the type)
template <typename Body>
APH_INLINE int with_number(int32_t number, const Body& body) {
  switch (number) {
    case kFloat: return body(float{});
    case kHalf: return body(Half{});
    default: return body(Bfloat{});
  }
}

}  // namespace aph::APH_LEVEL
