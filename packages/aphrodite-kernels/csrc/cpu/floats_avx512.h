// floats.h for AVX-512 (F, BW, VL, DQ).
#pragma once

#include <immintrin.h>

namespace aph::APH_LEVEL {

struct Floats { __m512 v; };

APH_INLINE __mmask16 first_lanes(int64_t count) {
  return static_cast<__mmask16>((1u << count) - 1);
}

APH_INLINE Floats zero() { return {_mm512_setzero_ps()}; }
APH_INLINE Floats all_floats(float value) { return {_mm512_set1_ps(value)}; }
APH_INLINE Floats operator+(Floats a, Floats b) { return {_mm512_add_ps(a.v, b.v)}; }
APH_INLINE Floats operator-(Floats a, Floats b) { return {_mm512_sub_ps(a.v, b.v)}; }
APH_INLINE Floats operator*(Floats a, Floats b) { return {_mm512_mul_ps(a.v, b.v)}; }
APH_INLINE Floats operator/(Floats a, Floats b) { return {_mm512_div_ps(a.v, b.v)}; }
APH_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
APH_INLINE Floats largest(Floats a, Floats b) { return {_mm512_max_ps(a.v, b.v)}; }
APH_INLINE Floats smallest(Floats a, Floats b) { return {_mm512_min_ps(a.v, b.v)}; }
APH_INLINE Floats nearest(Floats a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
// power: whole numbers.
APH_INLINE Floats times_power_of_two(Floats a, Floats power) {
  return {_mm512_scalef_ps(a.v, power.v)};
}
// x < limit ? 0 : a
APH_INLINE Floats zero_where_below(Floats x, Floats limit, Floats a) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, limit.v, _CMP_NLT_UQ), a.v)};
}
// Lanes from first to before last, `value` elsewhere.
APH_INLINE Floats within(Floats a, int first, int last, float value) {
  const __mmask16 inside = first_lanes(last) & ~first_lanes(first);
  return {_mm512_mask_mov_ps(_mm512_set1_ps(value), inside, a.v)};
}

APH_INLINE __m256 low_half(Floats a) { return _mm512_castps512_ps256(a.v); }
APH_INLINE __m256 high_half(Floats a) { return _mm512_extractf32x8_ps(a.v, 1); }

APH_INLINE Floats load(const float* p) { return {_mm512_loadu_ps(p)}; }
APH_INLINE Floats load(const float* p, int64_t count) {
  return {_mm512_maskz_loadu_ps(first_lanes(count), p)};
}
APH_INLINE void store(float* p, Floats a) { _mm512_storeu_ps(p, a.v); }
APH_INLINE void store(float* p, Floats a, int64_t count) {
  _mm512_mask_storeu_ps(p, first_lanes(count), a.v);
}

APH_INLINE Floats widen_half(__m256i bits) { return {_mm512_cvtph_ps(bits)}; }
APH_INLINE __m256i narrow_half(Floats a) { return _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT); }
APH_INLINE Floats widen_bfloat(__m256i bits) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}
APH_INLINE __m256i narrow_bfloat(Floats a) {
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, quiet), 16));
}

APH_INLINE Floats load(const Half* p) { return widen_half(_mm256_loadu_si256((const __m256i*)p)); }
APH_INLINE Floats load(const Half* p, int64_t count) {
  return widen_half(_mm256_maskz_loadu_epi16(first_lanes(count), p));
}
APH_INLINE void store(Half* p, Floats a) { _mm256_storeu_si256((__m256i*)p, narrow_half(a)); }
APH_INLINE void store(Half* p, Floats a, int64_t count) {
  _mm256_mask_storeu_epi16(p, first_lanes(count), narrow_half(a));
}
APH_INLINE Floats load(const Bfloat* p) {
  return widen_bfloat(_mm256_loadu_si256((const __m256i*)p));
}
APH_INLINE Floats load(const Bfloat* p, int64_t count) {
  return widen_bfloat(_mm256_maskz_loadu_epi16(first_lanes(count), p));
}
APH_INLINE void store(Bfloat* p, Floats a) { _mm256_storeu_si256((__m256i*)p, narrow_bfloat(a)); }
APH_INLINE void store(Bfloat* p, Floats a, int64_t count) {
  _mm256_mask_storeu_epi16(p, first_lanes(count), narrow_bfloat(a));
}

// table[code] for sixteen codes of four bits, the even ones in the low halves of bytes.
APH_INLINE Floats look_up(Floats table, const uint8_t* codes) {
  int32_t low, high;
  std::memcpy(&low, codes, 4);
  std::memcpy(&high, codes + 4, 4);
  const __m512i words = _mm512_mask_set1_epi32(_mm512_set1_epi32(low), 0xff00, high);
  const __m512i shifts =
      _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
  return {_mm512_permutexvar_ps(_mm512_srlv_epi32(words, shifts), table.v)};  // four bits count
}

APH_INLINE float sum(Floats a) {
  const __m256 eight = _mm256_add_ps(low_half(a), high_half(a));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}
APH_INLINE float largest(Floats a) { return _mm512_reduce_max_ps(a.v); }

// rows[i] lane j -> rows[j] lane i
APH_INLINE void transpose(Floats (&rows)[16]) {
  __m512 a[16], b[16];
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_ps(rows[i].v, rows[i + 1].v);
    a[i + 1] = _mm512_unpackhi_ps(rows[i].v, rows[i + 1].v);
  }
  for (int i = 0; i < 16; i += 4) {
    b[i] = _mm512_shuffle_ps(a[i], a[i + 2], 0x44);
    b[i + 1] = _mm512_shuffle_ps(a[i], a[i + 2], 0xee);
    b[i + 2] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0x44);
    b[i + 3] = _mm512_shuffle_ps(a[i + 1], a[i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    a[i] = _mm512_shuffle_f32x4(b[i], b[i + 4], 0x88);
    a[i + 4] = _mm512_shuffle_f32x4(b[i], b[i + 4], 0xdd);
    a[i + 8] = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0x88);
    a[i + 12] = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0xdd);
  }
  for (int i = 0; i < 8; ++i) {
    rows[i].v = _mm512_shuffle_f32x4(a[i], a[i + 8], 0x88);
    rows[i + 8].v = _mm512_shuffle_f32x4(a[i], a[i + 8], 0xdd);
  }
}

}  // namespace aph::APH_LEVEL
