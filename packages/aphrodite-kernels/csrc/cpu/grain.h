// How many rows make a piece that is worth handing to another thread.
#pragma once

#include <cstdint>

namespace aph {

// A hand-over costs about a microsecond, in which a thread does some 8192 simple operations.
constexpr int64_t grain_of(int64_t operations_per_row) {
  return 1 + 8192 / (operations_per_row < 1 ? 1 : operations_per_row);
}

}  // namespace aph
