// Vectors of 64 bytes and of 16 int32, beside floats.h: what the quantised products are written in.
//
// Results are equal bit for bit on every instruction set.
#pragma once

#include "floats.h"

namespace aph::APH_LEVEL {

// Whether the unsigned side of a dot product stays below 128; some instruction sets care.
enum class Codes { kSmall, kFull };

APH_INLINE int32_t load_four(const int8_t* bytes) {
  int32_t word;
  std::memcpy(&word, bytes, 4);
  return word;
}
APH_INLINE const Half* halves(const uint8_t* p) { return reinterpret_cast<const Half*>(p); }

}  // namespace aph::APH_LEVEL

#if defined(__AVX512BW__)
#include "integers_avx512.h"
#elif defined(__AVX2__)
#include "integers_avx2.h"
#else
#include "integers_portable.h"
#endif
