// integers.h for AVX2.
#pragma once

#include <immintrin.h>

namespace aph::APH_LEVEL {

struct Bytes { __m256i low, high; };
struct Ints { __m256i low, high; };

constexpr int kMaxRows = 2;  // rows multiplied at a time

APH_INLINE __m256i load_256(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
APH_INLINE __m128i load_128(const void* p) {
  return _mm_loadu_si128(static_cast<const __m128i*>(p));
}
APH_INLINE __m128i load_64(const void* p) {
  return _mm_loadl_epi64(static_cast<const __m128i*>(p));
}

APH_INLINE Bytes load_bytes(const uint8_t* p) { return {load_256(p), load_256(p + 32)}; }
APH_INLINE void store_bytes(uint8_t* p, Bytes a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.low);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 32), a.high);
}
APH_INLINE Bytes all_bytes(uint8_t value) {
  __m256i all = _mm256_set1_epi8(static_cast<char>(value));
  return {all, all};
}
APH_INLINE Bytes operator&(Bytes a, Bytes b) {
  return {_mm256_and_si256(a.low, b.low), _mm256_and_si256(a.high, b.high)};
}
APH_INLINE Bytes operator|(Bytes a, Bytes b) {
  return {_mm256_or_si256(a.low, b.low), _mm256_or_si256(a.high, b.high)};
}
// Bits cross byte borders: mask afterwards.
template <int by>
APH_INLINE Bytes shift_right(Bytes a) {
  if constexpr (by >= 0) return {_mm256_srli_epi16(a.low, by), _mm256_srli_epi16(a.high, by)};
  else return {_mm256_slli_epi16(a.low, -by), _mm256_slli_epi16(a.high, -by)};
}
// table[a] for a < 16.
APH_INLINE Bytes look_up(const uint8_t* table, Bytes a) {
  __m256i values = _mm256_broadcastsi128_si256(load_128(table));
  return {_mm256_shuffle_epi8(values, a.low), _mm256_shuffle_epi8(values, a.high)};
}

APH_INLINE Ints all_ints(int32_t value) {
  __m256i all = _mm256_set1_epi32(value);
  return {all, all};
}
APH_INLINE Ints shift_left(Ints a, int by) {
  __m128i count = _mm_cvtsi32_si128(by);
  return {_mm256_sll_epi32(a.low, count), _mm256_sll_epi32(a.high, count)};
}
template <int by>
APH_INLINE Ints shift_right(Ints a) {
  return {_mm256_srli_epi32(a.low, by), _mm256_srli_epi32(a.high, by)};
}
APH_INLINE Ints operator&(Ints a, Ints b) {
  return {_mm256_and_si256(a.low, b.low), _mm256_and_si256(a.high, b.high)};
}

APH_INLINE Floats to_floats(Ints a) {
  return {_mm256_cvtepi32_ps(a.low), _mm256_cvtepi32_ps(a.high)};
}
APH_INLINE Ints load_unsigned(const uint8_t* p) {
  return {_mm256_cvtepu8_epi32(load_64(p)), _mm256_cvtepu8_epi32(load_64(p + 8))};
}
APH_INLINE Ints load_signed(const uint8_t* p) {
  return {_mm256_cvtepi8_epi32(load_64(p)), _mm256_cvtepi8_epi32(load_64(p + 8))};
}
APH_INLINE Ints bits_of(Floats a) {
  return {_mm256_castps_si256(a.low), _mm256_castps_si256(a.high)};
}
APH_INLINE Ints largest(Ints a, Ints b) {
  return {_mm256_max_epi32(a.low, b.low), _mm256_max_epi32(a.high, b.high)};
}
APH_INLINE int32_t largest(Ints a) {
  const __m256i eight = _mm256_max_epi32(a.low, a.high);
  __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}
APH_INLINE int32_t sum(Ints a) {
  const __m256i eight = _mm256_add_epi32(a.low, a.high);
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}
// Only for values that fit in 8 bits.
APH_INLINE void store_low_bytes(int8_t* p, Ints a) {
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a.low, a.high), 0xd8);
  const __m128i low = _mm256_castsi256_si128(words), high = _mm256_extracti128_si256(words, 1);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(low, high));
}
APH_INLINE Ints operator-(Ints a, Ints b) {
  return {_mm256_sub_epi32(a.low, b.low), _mm256_sub_epi32(a.high, b.high)};
}

// Pairs are added in 16 bits, saturating: 2 * 127 * 127 and 2 * 128 * 127 both fit.
template <Codes codes>
APH_INLINE __m256i dot_four_half(__m256i sum, __m256i u, __m256i four) {
  const __m256i ones = _mm256_set1_epi16(1);
  if constexpr (codes == Codes::kFull) {
    __m256i top = _mm256_maddubs_epi16(_mm256_and_si256(u, _mm256_set1_epi8(-128)), four);
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(top, ones));
    u = _mm256_and_si256(u, _mm256_set1_epi8(127));
  }
  return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(u, four), ones));
}

// sum[i] += u[4i] x[0] + … + u[4i + 3] x[3], exactly.
template <Codes codes>
APH_INLINE Ints dot_four(Ints sum, Bytes u, int32_t x) {
  __m256i four = _mm256_set1_epi32(x);
  return {dot_four_half<codes>(sum.low, u.low, four), dot_four_half<codes>(sum.high, u.high, four)};
}

}  // namespace aph::APH_LEVEL
