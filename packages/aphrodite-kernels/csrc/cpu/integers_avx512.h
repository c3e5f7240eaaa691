// integers.h for AVX-512 (F, BW, VL, DQ), with or without VNNI.
#pragma once

#include <immintrin.h>

namespace aph::APH_LEVEL {

struct Bytes { __m512i v; };
struct Ints { __m512i v; };

// Rows multiplied at a time: two accumulators each, and 32 registers.
constexpr int kMaxRows = 8;

APH_INLINE Bytes load_bytes(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
APH_INLINE void store_bytes(uint8_t* p, Bytes a) { _mm512_storeu_si512(p, a.v); }
APH_INLINE Bytes all_bytes(uint8_t value) { return {_mm512_set1_epi8(static_cast<char>(value))}; }
APH_INLINE Bytes operator&(Bytes a, Bytes b) { return {_mm512_and_si512(a.v, b.v)}; }
APH_INLINE Bytes operator|(Bytes a, Bytes b) { return {_mm512_or_si512(a.v, b.v)}; }
// Bits cross byte borders: mask afterwards.
template <int by>
APH_INLINE Bytes shift_right(Bytes a) {
  if constexpr (by >= 0) return {_mm512_srli_epi16(a.v, by)};
  else return {_mm512_slli_epi16(a.v, -by)};
}
// table[a] for a < 16.
APH_INLINE Bytes look_up(const uint8_t* table, Bytes a) {
  __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  return {_mm512_shuffle_epi8(_mm512_maskz_broadcast_i32x4(0xffff, values), a.v)};
}

APH_INLINE Ints all_ints(int32_t value) { return {_mm512_set1_epi32(value)}; }
APH_INLINE Ints shift_left(Ints a, int by) {
  return {_mm512_sll_epi32(a.v, _mm_cvtsi32_si128(by))};
}

APH_INLINE Floats to_floats(Ints a) { return {_mm512_cvtepi32_ps(a.v)}; }
APH_INLINE Ints load_unsigned(const uint8_t* p) {
  return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
APH_INLINE Ints load_signed(const uint8_t* p) {
  return {_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
APH_INLINE Ints bits_of(Floats a) { return {_mm512_castps_si512(a.v)}; }
APH_INLINE Ints largest(Ints a, Ints b) { return {_mm512_max_epi32(a.v, b.v)}; }
APH_INLINE int32_t largest(Ints a) { return _mm512_reduce_max_epi32(a.v); }
APH_INLINE int32_t sum(Ints a) { return _mm512_reduce_add_epi32(a.v); }
APH_INLINE void store_low_bytes(int8_t* p, Ints a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v));
}
APH_INLINE Ints operator-(Ints a, Ints b) { return {_mm512_sub_epi32(a.v, b.v)}; }
APH_INLINE Ints operator&(Ints a, Ints b) { return {_mm512_and_si512(a.v, b.v)}; }
template <int by>
APH_INLINE Ints shift_right(Ints a) { return {_mm512_srli_epi32(a.v, by)}; }

// sum[i] += u[4i] x[0] + … + u[4i + 3] x[3], exactly.
template <Codes codes>
APH_INLINE Ints dot_four(Ints sum, Bytes u, int32_t x) {
  __m512i four = _mm512_set1_epi32(x);
#if defined(__AVX512VNNI__)
  return {_mm512_dpbusd_epi32(sum.v, u.v, four)};
#else
  // Pairs are added in 16 bits, saturating: 2 * 127 * 127 and 2 * 128 * 127 both fit.
  const __m512i ones = _mm512_set1_epi16(1);
  if constexpr (codes == Codes::kFull) {
    __m512i top = _mm512_maddubs_epi16(_mm512_and_si512(u.v, _mm512_set1_epi8(-128)), four);
    sum.v = _mm512_add_epi32(sum.v, _mm512_madd_epi16(top, ones));
    u.v = _mm512_and_si512(u.v, _mm512_set1_epi8(127));
  }
  return {_mm512_add_epi32(sum.v, _mm512_madd_epi16(_mm512_maddubs_epi16(u.v, four), ones))};
#endif
}

}  // namespace aph::APH_LEVEL
