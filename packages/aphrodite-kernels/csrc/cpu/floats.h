// Sixteen float32 at a time: what the ops are written in.
//
// Numbers narrower than float32 are widened by load() and rounded to nearest even by store(). With
// a count, both touch only that many elements; missing ones are zero. Additions across the lanes
// have one order on every instruction set; results differ between sets only where the portable
// multiply_add rounds twice.
#pragma once

#include <cstdint>
#include <cstring>

#define APH_INLINE_MEMBER inline __attribute__((always_inline))
#define APH_INLINE static APH_INLINE_MEMBER

namespace aph::APH_LEVEL {

constexpr int kLanes = 16;

struct Half { uint16_t bits; };
struct Bfloat { uint16_t bits; };

APH_INLINE uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}
APH_INLINE float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

}  // namespace aph::APH_LEVEL

#if defined(__AVX512BW__)
#include "floats_avx512.h"
#elif defined(__AVX2__)
#include "floats_avx2.h"
#else
#include "floats_portable.h"
#endif

namespace aph::APH_LEVEL {

#if !defined(__AVX512BW__)
template <typename Number>
APH_INLINE Floats load(const Number* p, int64_t count) {
  alignas(64) Number padded[kLanes] = {};
  std::memcpy(padded, p, count * sizeof(Number));
  return load(padded);
}
template <typename Number>
APH_INLINE void store(Number* p, Floats a, int64_t count) {
  alignas(64) Number padded[kLanes];
  store(padded, a);
  std::memcpy(p, padded, count * sizeof(Number));
}
#endif

// e^x to 2 units in the last place; 0 below -87, at least 2^127 above 88.
APH_INLINE Floats exponential(Floats x) {
  const Floats low = all_floats(-87.33f), high = all_floats(88.37f);
  const Floats clamped = smallest(largest(x, low), high);
  const Floats power = nearest(clamped * all_floats(1.44269504f));
  Floats rest = multiply_add(power, all_floats(-0.693359375f), clamped);
  rest = multiply_add(power, all_floats(2.12194440e-4f), rest);
  // Degree 5 minimax polynomial of (e^r - 1 - r) / r² on |r| <= ln 2 / 2 (Cephes).
  Floats sum = all_floats(1.9875691500e-4f);
  sum = multiply_add(sum, rest, all_floats(1.3981999507e-3f));
  sum = multiply_add(sum, rest, all_floats(8.3334519073e-3f));
  sum = multiply_add(sum, rest, all_floats(4.1665795894e-2f));
  sum = multiply_add(sum, rest, all_floats(1.6666665459e-1f));
  sum = multiply_add(sum, rest, all_floats(5.0000001201e-1f));
  sum = multiply_add(sum, rest * rest, rest + all_floats(1.0f));
  return zero_where_below(x, low, times_power_of_two(sum, power));
}

// 1 / (1 + e^-x)
APH_INLINE Floats sigmoid(Floats x) {
  return all_floats(1.0f) / (all_floats(1.0f) + exponential(zero() - x));
}

// Loads that touch the whole vector, or the `count` elements that are left of a row.
struct Whole {
  template <typename Number>
  APH_INLINE_MEMBER Floats get(const Number* p) const { return load(p); }
  template <typename Number>
  APH_INLINE_MEMBER void put(Number* p, Floats a) const { store(p, a); }
};
struct Part {
  int64_t count;
  template <typename Number>
  APH_INLINE_MEMBER Floats get(const Number* p) const { return load(p, count); }
  template <typename Number>
  APH_INLINE_MEMBER void put(Number* p, Floats a) const { store(p, a, count); }
};

// body(i, lanes) for each vector of a row of `width` elements; lanes is Whole but for a last Part.
template <typename Body>
APH_INLINE void for_lanes(int64_t width, const Body& body) {
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) body(i, Whole{});
  if (i < width) body(i, Part{width - i});
}

}  // namespace aph::APH_LEVEL
