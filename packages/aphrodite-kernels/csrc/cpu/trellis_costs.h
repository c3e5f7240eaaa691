// Costs of paths, in whose lowest bits stands where a path comes from: one minimum finds both.
//
// Costs are never negative, so that they are ordered as their bits are.
#pragma once

#include "floats.h"

namespace aph::APH_LEVEL {

#if defined(__AVX512BW__)

// The lowest `bits` bits replaced by `mark`.
template <int bits>
APH_INLINE Floats marked(Floats cost, int32_t mark) {
  const __m512i kept = _mm512_set1_epi32(-(1 << bits));
  // (cost & kept) | mark
  return {_mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_castps_si512(cost.v), kept,
                                                        _mm512_set1_epi32(mark), 0xea))};
}
// The marks to one place, the costs without them to the other.
template <int bits>
APH_INLINE void store_apart(Floats cost, uint8_t* marks, float* costs) {
  const __m512i word = _mm512_castps_si512(cost.v), mask = _mm512_set1_epi32((1 << bits) - 1);
  _mm_storeu_si128((__m128i*)marks, _mm512_cvtepi32_epi8(_mm512_and_si512(word, mask)));
  _mm512_storeu_si512(costs, _mm512_andnot_si512(mask, word));
}
// Sixteen numbers, each of p's 2^bits times; p may be read beyond them, up to sixteen.
template <int bits>
APH_INLINE Floats repeated(const float* p) {
  if constexpr (bits >= 4) return all_floats(*p);
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return {_mm512_permutexvar_ps(_mm512_srli_epi32(lane, bits), _mm512_loadu_ps(p))};
}

#elif defined(__AVX2__)

APH_INLINE __m256 kept_and(__m256 cost, int32_t kept, int32_t mark) {
  const __m256i bits = _mm256_and_si256(_mm256_castps_si256(cost), _mm256_set1_epi32(kept));
  return _mm256_castsi256_ps(_mm256_or_si256(bits, _mm256_set1_epi32(mark)));
}
template <int bits>
APH_INLINE Floats marked(Floats cost, int32_t mark) {
  return {kept_and(cost.low, -(1 << bits), mark), kept_and(cost.high, -(1 << bits), mark)};
}
template <int bits>
APH_INLINE void store_apart(Floats cost, uint8_t* marks, float* costs) {
  const Floats mark{kept_and(cost.low, (1 << bits) - 1, 0), kept_and(cost.high, (1 << bits) - 1, 0)};
  const __m256i words = _mm256_permute4x64_epi64(
      _mm256_packus_epi32(_mm256_castps_si256(mark.low), _mm256_castps_si256(mark.high)), 0xd8);
  _mm_storeu_si128((__m128i*)marks, _mm_packus_epi16(_mm256_castsi256_si128(words),
                                                     _mm256_extracti128_si256(words, 1)));
  store(costs, marked<bits>(cost, 0));
}
template <int bits>
APH_INLINE Floats repeated(const float* p) {
  if constexpr (bits >= 4) return all_floats(*p);
  if constexpr (bits == 3) return {_mm256_set1_ps(p[0]), _mm256_set1_ps(p[1])};
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i low = _mm256_srli_epi32(lane, bits);
  const __m256i high = _mm256_add_epi32(low, _mm256_set1_epi32(8 >> bits));
  const __m256 eight = _mm256_loadu_ps(p);
  return {_mm256_permutevar8x32_ps(eight, low), _mm256_permutevar8x32_ps(eight, high)};
}

#else

template <int bits>
APH_INLINE Floats marked(Floats cost, int32_t mark) {
  constexpr uint32_t kept = ~((1u << bits) - 1);
  return each([&](int i) { return float_of((bits_of(cost.v[i]) & kept) | mark); });
}
template <int bits>
APH_INLINE void store_apart(Floats cost, uint8_t* marks, float* costs) {
  for (int i = 0; i < kLanes; ++i)
    marks[i] = static_cast<uint8_t>(bits_of(cost.v[i]) & ((1u << bits) - 1));
  store(costs, marked<bits>(cost, 0));
}
template <int bits>
APH_INLINE Floats repeated(const float* p) {
  return each([&](int i) { return p[i >> bits]; });
}

#endif

}  // namespace aph::APH_LEVEL
