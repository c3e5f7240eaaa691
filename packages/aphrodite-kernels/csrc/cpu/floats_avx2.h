// floats.h for AVX2, FMA and F16C.
#pragma once

#include <immintrin.h>

namespace aph::APH_LEVEL {

struct Floats { __m256 low, high; };

APH_INLINE Floats zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
APH_INLINE Floats all_floats(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
APH_INLINE Floats operator+(Floats a, Floats b) {
  return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}
APH_INLINE Floats operator-(Floats a, Floats b) {
  return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}
APH_INLINE Floats operator*(Floats a, Floats b) {
  return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
APH_INLINE Floats operator/(Floats a, Floats b) {
  return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
}
APH_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
APH_INLINE Floats largest(Floats a, Floats b) {
  return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}
APH_INLINE Floats smallest(Floats a, Floats b) {
  return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)};
}
APH_INLINE Floats nearest(Floats a) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.low, mode), _mm256_round_ps(a.high, mode)};
}
// power: whole numbers from -126 to 127.
APH_INLINE __m256 power_of_two(__m256 power) {
  const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(power), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}
APH_INLINE Floats times_power_of_two(Floats a, Floats power) {
  return a * Floats{power_of_two(power.low), power_of_two(power.high)};
}
// x < limit ? 0 : a
APH_INLINE Floats zero_where_below(Floats x, Floats limit, Floats a) {
  return {_mm256_and_ps(_mm256_cmp_ps(x.low, limit.low, _CMP_NLT_UQ), a.low),
          _mm256_and_ps(_mm256_cmp_ps(x.high, limit.high, _CMP_NLT_UQ), a.high)};
}
APH_INLINE __m256 within(__m256 a, __m256i lane, int first, int last, float value) {
  const __m256i outside = _mm256_or_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(first), lane),
                                          _mm256_cmpgt_epi32(lane, _mm256_set1_epi32(last - 1)));
  return _mm256_blendv_ps(a, _mm256_set1_ps(value), _mm256_castsi256_ps(outside));
}
// Lanes from first to before last, `value` elsewhere.
APH_INLINE Floats within(Floats a, int first, int last, float value) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i above = _mm256_add_epi32(lane, _mm256_set1_epi32(8));
  return {within(a.low, lane, first, last, value), within(a.high, above, first, last, value)};
}

APH_INLINE Floats load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
APH_INLINE void store(float* p, Floats a) {
  _mm256_storeu_ps(p, a.low);
  _mm256_storeu_ps(p + 8, a.high);
}
APH_INLINE Floats load(const Half* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)),
          _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(p + 8)))};
}
APH_INLINE void store(Half* p, Floats a) {
  _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph(a.low, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128((__m128i*)(p + 8), _mm256_cvtps_ph(a.high, _MM_FROUND_TO_NEAREST_INT));
}
// table[code] for eight codes of four bits.
APH_INLINE __m256 look_up_eight(Floats table, const uint8_t* codes) {
  int32_t word;
  std::memcpy(&word, codes, 4);
  const __m256i shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
  const __m256i index = _mm256_srlv_epi32(_mm256_set1_epi32(word), shifts);  // of it, 3 bits count
  const __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));
  return _mm256_blendv_ps(_mm256_permutevar8x32_ps(table.low, index),
                          _mm256_permutevar8x32_ps(table.high, index), upper);
}
// table[code] for sixteen codes of four bits, the even ones in the low halves of bytes.
APH_INLINE Floats look_up(Floats table, const uint8_t* codes) {
  return {look_up_eight(table, codes), look_up_eight(table, codes + 4)};
}
APH_INLINE __m256 widen_bfloat(__m128i bits) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
// The upper halves of the words.
APH_INLINE __m256i round_bfloat(__m256 a) {
  const __m256i bits = _mm256_castps_si256(a);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256 nan = _mm256_cmp_ps(a, a, _CMP_UNORD_Q);
  const __m256 chosen =
      _mm256_blendv_ps(_mm256_castsi256_ps(rounded), _mm256_castsi256_ps(quiet), nan);
  return _mm256_srli_epi32(_mm256_castps_si256(chosen), 16);
}
APH_INLINE Floats load(const Bfloat* p) {
  return {widen_bfloat(_mm_loadu_si128((const __m128i*)p)),
          widen_bfloat(_mm_loadu_si128((const __m128i*)(p + 8)))};
}
APH_INLINE void store(Bfloat* p, Floats a) {
  const __m256i mixed = _mm256_packus_epi32(round_bfloat(a.low), round_bfloat(a.high));
  _mm256_storeu_si256((__m256i*)p, _mm256_permute4x64_epi64(mixed, 0xd8));
}

APH_INLINE float sum(Floats a) {
  const __m256 eight = _mm256_add_ps(a.low, a.high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
APH_INLINE float largest(Floats a) {
  const __m256 eight = _mm256_max_ps(a.low, a.high);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

APH_INLINE void transpose_eight(__m256 (&rows)[8]) {
  __m256 a[8], b[8];
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
    a[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
    b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xee);
    b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
    b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    rows[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
    rows[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
  }
}
// rows[i] lane j -> rows[j] lane i
APH_INLINE void transpose(Floats (&rows)[16]) {
  __m256 quarter[2][2][8];  // [keys' half][elements' half]
  for (int i = 0; i < 8; ++i) {
    quarter[0][0][i] = rows[i].low;
    quarter[0][1][i] = rows[i].high;
    quarter[1][0][i] = rows[i + 8].low;
    quarter[1][1][i] = rows[i + 8].high;
  }
  for (auto& half : quarter)
    for (auto& eight : half) transpose_eight(eight);
  for (int i = 0; i < 8; ++i) {
    rows[i] = {quarter[0][0][i], quarter[1][0][i]};
    rows[i + 8] = {quarter[0][1][i], quarter[1][1][i]};
  }
}

}  // namespace aph::APH_LEVEL
