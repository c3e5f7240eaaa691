// Exponentials and logarithms in float64, without branches: compilers vectorise loops over them.
//
// Good to 3 units in the last place, and equal bit for bit on every instruction set.
#pragma once

#include "floats.h"

namespace aph::APH_LEVEL {

constexpr double kWeightless64 = -708.0;  // e^x counts as 0 below
constexpr double kLog2 = 0.693147180559945309;

APH_INLINE double double_of(uint64_t bits) {
  double value;
  std::memcpy(&value, &bits, 8);
  return value;
}
APH_INLINE uint64_t bits_of(double value) {
  uint64_t bits;
  std::memcpy(&bits, &value, 8);
  return bits;
}

// e^x = power * (1 + more)
struct Exponential { double power, more; };

// x from -708 to 708.
APH_INLINE Exponential split_exponential(double x) {
  constexpr double shift = 6755399441055744.0;                  // 1.5 * 2^52: rounds to integers
  constexpr double high = 0x1.62e42feep-1, low = 0x1.a39ef35793c76p-33;  // together ln 2
  const double shifted = x * (1.0 / kLog2) + shift;
  const double count = shifted - shift;
  const double r = x - count * high - count * low;
  double sum = 1.0 / 6227020800.0;  // Taylor's series; |r| is below 0.347
  sum = sum * r + 1.0 / 479001600.0;
  sum = sum * r + 1.0 / 39916800.0;
  sum = sum * r + 1.0 / 3628800.0;
  sum = sum * r + 1.0 / 362880.0;
  sum = sum * r + 1.0 / 40320.0;
  sum = sum * r + 1.0 / 5040.0;
  sum = sum * r + 1.0 / 720.0;
  sum = sum * r + 1.0 / 120.0;
  sum = sum * r + 1.0 / 24.0;
  sum = sum * r + 1.0 / 6.0;
  sum = sum * r + 0.5;
  return {double_of((bits_of(shifted) + 1023) << 52), sum * r * r + r};
}

// e^x for x up to 0.
APH_INLINE double exponential(double x) {
  const Exponential parts = split_exponential(x < kWeightless64 ? kWeightless64 : x);
  const double value = parts.power * parts.more + parts.power;
  return x < kWeightless64 ? 0.0 : value;
}

// e^x - 1 for x up to 0.
APH_INLINE double exponential_less_one(double x) {
  const Exponential parts = split_exponential(x < kWeightless64 ? kWeightless64 : x);
  return parts.power * parts.more + (parts.power - 1.0);
}

// ln x of normal numbers; -infinity of 0.
APH_INLINE double logarithm(double x) {
  const uint64_t bits = bits_of(x);
  // The power that leaves a factor from sqrt(1/2) to sqrt(2).
  const uint64_t power = (bits - 0x3fe6a09e667f3bcdull + (1024ull << 52)) >> 52;
  const double factor = double_of(bits - ((power - 1024) << 52));
  const double count = double_of(power | 0x4330000000000000ull) - (0x1p52 + 1024.0);
  const double s = (factor - 1.0) / (factor + 1.0), square = s * s;
  double sum = 1.0 / 21.0;  // the series of the inverse hyperbolic tangent; |s| is below 0.172
  sum = sum * square + 1.0 / 19.0;
  sum = sum * square + 1.0 / 17.0;
  sum = sum * square + 1.0 / 15.0;
  sum = sum * square + 1.0 / 13.0;
  sum = sum * square + 1.0 / 11.0;
  sum = sum * square + 1.0 / 9.0;
  sum = sum * square + 1.0 / 7.0;
  sum = sum * square + 1.0 / 5.0;
  sum = sum * square + 1.0 / 3.0;
  const double value = count * kLog2 + 2.0 * (s + s * square * sum);
  return x == 0.0 ? -__builtin_inf() : value;
}

// ln(1 + x) for x above -1.
APH_INLINE double logarithm_of_more(double x) {
  const double more = 1.0 + x;
  return more <= 0.0 ? -__builtin_inf() : logarithm(more) + (x - (more - 1.0)) / more;
}

}  // namespace aph::APH_LEVEL
