// floats.h in plain C++ for any machine; compilers turn most of it into short vectors.
#pragma once

#include <cmath>

namespace aph::APH_LEVEL {

struct Floats { float v[kLanes]; };

template <typename Lane>
APH_INLINE Floats each(const Lane& lane) {
  Floats result;
  for (int i = 0; i < kLanes; ++i) result.v[i] = lane(i);
  return result;
}

APH_INLINE Floats all_floats(float value) { return each([&](int) { return value; }); }
APH_INLINE Floats zero() { return all_floats(0.0f); }
APH_INLINE Floats operator+(Floats a, Floats b) {
  return each([&](int i) { return a.v[i] + b.v[i]; });
}
APH_INLINE Floats operator-(Floats a, Floats b) {
  return each([&](int i) { return a.v[i] - b.v[i]; });
}
APH_INLINE Floats operator*(Floats a, Floats b) {
  return each([&](int i) { return a.v[i] * b.v[i]; });
}
APH_INLINE Floats operator/(Floats a, Floats b) {
  return each([&](int i) { return a.v[i] / b.v[i]; });
}
APH_INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return a * b + c; }
// Of a NaN and a number: b, as on x86.
APH_INLINE Floats largest(Floats a, Floats b) {
  return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
APH_INLINE Floats smallest(Floats a, Floats b) {
  return each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
APH_INLINE Floats nearest(Floats a) {
  constexpr float shift = 12582912.0f;  // 1.5 * 2^23: for |a| below 2^22
  return each([&](int i) { return (a.v[i] + shift) - shift; });
}
// power: whole numbers from -126 to 127.
APH_INLINE Floats times_power_of_two(Floats a, Floats power) {
  return each([&](int i) {
    return a.v[i] * float_of(static_cast<uint32_t>(static_cast<int32_t>(power.v[i]) + 127) << 23);
  });
}
// table[code] for sixteen codes of four bits, the even ones in the low halves of bytes.
APH_INLINE Floats look_up(Floats table, const uint8_t* codes) {
  return each([&](int i) { return table.v[codes[i / 2] >> i % 2 * 4 & 15]; });
}
// x < limit ? 0 : a
APH_INLINE Floats zero_where_below(Floats x, Floats limit, Floats a) {
  return each([&](int i) { return x.v[i] < limit.v[i] ? 0.0f : a.v[i]; });
}
// Lanes from first to before last, `value` elsewhere.
APH_INLINE Floats within(Floats a, int first, int last, float value) {
  return each([&](int i) { return i >= first && i < last ? a.v[i] : value; });
}

APH_INLINE float widen(float number) { return number; }
APH_INLINE float widen(Bfloat number) { return float_of(static_cast<uint32_t>(number.bits) << 16); }
APH_INLINE float widen(Half number) {
  const uint32_t sign = (number.bits & 0x8000u) << 16, rest = number.bits & 0x7fffu;
  if (rest >= 0x7c00u) return float_of(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
  // Exponents of float16 put where float32 has them, then scaled: right for subnormals too.
  return float_of(sign | bits_of(float_of(rest << 13) * float_of(0x77800000u)));  // * 2^112
}
APH_INLINE void narrow(float value, float* to) { *to = value; }
APH_INLINE void narrow(float value, Bfloat* to) {
  const uint32_t bits = bits_of(value);
  const uint32_t rounded = value != value ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1);
  to->bits = static_cast<uint16_t>(rounded >> 16);
}
APH_INLINE void narrow(float value, Half* to) {
  const uint32_t sign = bits_of(value) >> 16 & 0x8000u, rest = bits_of(value) & 0x7fffffffu;
  uint32_t half;
  if (rest > 0x7f800000u) half = 0x7e00u | (rest >> 13 & 0x3ffu);
  else if (rest >= 0x477ff000u) half = 0x7c00u;  // 65520 and more
  else if (rest < 0x38800000u) half = bits_of(float_of(rest) + 0.5f) - 0x3f000000u;  // subnormal
  else half = (rest - 0x38000000u + 0xfffu + (rest >> 13 & 1)) >> 13;
  to->bits = static_cast<uint16_t>(sign | half);
}
template <typename Number>
APH_INLINE Floats load(const Number* p) { return each([&](int i) { return widen(p[i]); }); }
template <typename Number>
APH_INLINE void store(Number* p, Floats a) {
  for (int i = 0; i < kLanes; ++i) narrow(a.v[i], p + i);
}

APH_INLINE float sum(Floats a) {
  for (int half = 8; half; half /= 2)
    for (int i = 0; i < half; ++i) a.v[i] += a.v[i + half];
  return a.v[0];
}
APH_INLINE float largest(Floats a) {
  for (int half = 8; half; half /= 2)
    for (int i = 0; i < half; ++i) a.v[i] = a.v[i] > a.v[i + half] ? a.v[i] : a.v[i + half];
  return a.v[0];
}
// rows[i] lane j -> rows[j] lane i
APH_INLINE void transpose(Floats (&rows)[16]) {
  for (int i = 0; i < kLanes; ++i)
    for (int j = 0; j < i; ++j) {
      const float kept = rows[i].v[j];
      rows[i].v[j] = rows[j].v[i];
      rows[j].v[i] = kept;
    }
}

}  // namespace aph::APH_LEVEL
