// The numbers of a quantised cache: of eight bits, or two of four bits in a byte.
//
// Each vector has a scale beside the cache; what is loaded here is what the scale is multiplied with.
// Weights that are floats of eight bits are read as they are here.
#pragma once

#include "numbers.h"

namespace aph::APH_LEVEL {

struct Int8 { int8_t bits; };
struct E4m3 { uint8_t bits; };   // bias 7, no infinity, 0x7f is NaN
struct E5m2 { uint8_t bits; };   // the upper half of a Half
struct Int4s { uint8_t bits; };  // two, each plus 8; the first in the lower half

enum CacheNumber : int32_t { kInt8 = kBfloat + 1, kE4m3, kE5m2, kInt4s };

// What the largest number of a vector becomes; 0: numbers without scales.
template <typename Stored> constexpr float kLimit = 0.0f;
template <> constexpr float kLimit<Int8> = 127.0f;
template <> constexpr float kLimit<E4m3> = 448.0f;
template <> constexpr float kLimit<E5m2> = 57344.0f;
template <> constexpr float kLimit<Int4s> = -8.0f;

// Element d of a vector, d a multiple of kLanes.
template <typename Stored>
APH_INLINE Stored* element(Stored* vector, int64_t d) { return vector + d; }
APH_INLINE Int4s* element(Int4s* vector, int64_t d) { return vector + d / 2; }
APH_INLINE const Int4s* element(const Int4s* vector, int64_t d) { return vector + d / 2; }

#if defined(__AVX2__)
#if defined(__AVX512BW__)
APH_INLINE Floats widen_bytes(__m128i bytes) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))};
}
#else
APH_INLINE Floats widen_bytes(__m128i bytes) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))};
}
APH_INLINE Floats widen_half(__m256i bits) {
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(bits)),
          _mm256_cvtph_ps(_mm256_extracti128_si256(bits, 1))};
}
#endif
APH_INLINE Floats load(const Int8* p) { return widen_bytes(_mm_loadu_si128((const __m128i*)p)); }
APH_INLINE Floats load(const E5m2* p) {
  const __m256i words = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)p));
  return widen_half(_mm256_slli_epi16(words, 8));
}
// Divided by 256: the biases differ by 8.
APH_INLINE Floats load_small(const E4m3* p) {
  const __m256i words = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)p));
  const __m256i half = _mm256_and_si256(_mm256_slli_epi16(words, 7), _mm256_set1_epi16(-0x4080));
  const __m256i last = _mm256_set1_epi16(-0x4080);
  const __m256i like = _mm256_or_si256(half, _mm256_set1_epi16(-0x8000));
  const __m256i nan = _mm256_and_si256(_mm256_cmpeq_epi16(like, last), _mm256_set1_epi16(0x7c00));
  return widen_half(_mm256_or_si256(half, nan));
}
APH_INLINE Floats load(const Int4s* p) {
  const __m128i words = _mm_cvtepu8_epi16(_mm_loadl_epi64((const __m128i*)p));
  const __m128i codes =
      _mm_and_si128(_mm_or_si128(words, _mm_slli_epi16(words, 4)), _mm_set1_epi16(0x0f0f));
  return widen_bytes(_mm_sub_epi8(codes, _mm_set1_epi8(8)));
}
#else
APH_INLINE float widen(Int8 number) { return number.bits; }
APH_INLINE float widen(E5m2 number) { return widen(Half{static_cast<uint16_t>(number.bits << 8)}); }
APH_INLINE float widen_small(E4m3 number) {
  const int rest = number.bits & 0x7f, sign = number.bits & 0x80;
  const int half = sign << 8 | rest << 7 | (rest == 0x7f ? 0x7c00 : 0);
  return widen(Half{static_cast<uint16_t>(half)});
}
APH_INLINE Floats load_small(const E4m3* p) {
  return each([&](int i) { return widen_small(p[i]); });
}
APH_INLINE Floats load(const Int4s* p) {
  return each([&](int i) { return static_cast<float>((p[i / 2].bits >> i % 2 * 4 & 15) - 8); });
}
#endif
APH_INLINE Floats load(const E4m3* p) { return load_small(p) * all_floats(256.0f); }

// Bytes of `count` numbers, and the byte that stands for zeros.
template <typename Stored>
APH_INLINE int64_t bytes_of(int64_t count) { return count; }
template <> APH_INLINE_MEMBER int64_t bytes_of<Int4s>(int64_t count) { return (count + 1) / 2; }
template <typename Stored> constexpr int kZeros = 0;
template <> constexpr int kZeros<Int4s> = 0x88;

template <typename Stored>
  requires(sizeof(Stored) == 1)
APH_INLINE Floats load(const Stored* p, int64_t count) {
  alignas(16) Stored padded[kLanes];
  std::memset(padded, kZeros<Stored>, sizeof padded);
  std::memcpy(padded, p, bytes_of<Stored>(count));
  return load(padded);
}

// Nearest whole number, of a NaN 0; |value| below 2^22.
APH_INLINE int nearest_of(float value) {
  return value != value ? 0 : static_cast<int>(bits_of(value + 12582912.0f) - 0x4b400000u);
}
// Nearest even float of eight bits; what rounds beyond the largest exponent is NaN or infinity.
template <int mantissa, int bias, int nan, int beyond>
APH_INLINE uint8_t narrow_bits(float value) {
  const uint32_t sign = bits_of(value) >> 24 & 0x80u, rest = bits_of(value) & 0x7fffffffu;
  constexpr int cut = 23 - mantissa;
  constexpr uint32_t shift = static_cast<uint32_t>(1 - bias + cut + 127) << 23;
  uint32_t code;
  if (rest < static_cast<uint32_t>(128 - bias) << 23)
    code = bits_of(float_of(rest) + float_of(shift)) - shift;  // subnormal
  else
    code = (rest - (static_cast<uint32_t>(127 - bias) << 23) + (1u << (cut - 1)) - 1 +
            (rest >> cut & 1)) >> cut;
  if (code > beyond) code = beyond;
  return static_cast<uint8_t>(sign | (rest > 0x7f800000u ? nan : code));
}
APH_INLINE void narrow(float value, E4m3* to) { to->bits = narrow_bits<3, 7, 0x7f, 0x7f>(value); }
APH_INLINE void narrow(float value, E5m2* to) { to->bits = narrow_bits<2, 15, 0x7f, 0x7c>(value); }
APH_INLINE void narrow(float value, Int8* to) {
  to->bits = static_cast<int8_t>(nearest_of(value));
}

template <typename Stored>
  requires(sizeof(Stored) == 1)
APH_INLINE void store(Stored* p, Floats a) {
  alignas(64) float lanes[kLanes];
  store(lanes, a);
  for (int i = 0; i < kLanes; ++i) narrow(lanes[i], p + i);
}
APH_INLINE void store(Int4s* p, Floats a) {
  alignas(64) float lanes[kLanes];
  store(lanes, a);
  for (int i = 0; i < kLanes; i += 2) {
    const int low = nearest_of(lanes[i]) + 8, high = nearest_of(lanes[i + 1]) + 8;
    p[i / 2].bits = static_cast<uint8_t>(low | high << 4);
  }
}
template <typename Stored>
  requires(sizeof(Stored) == 1)
APH_INLINE void store(Stored* p, Floats a, int64_t count) {
  alignas(16) Stored padded[kLanes];
  store(padded, a);
  std::memcpy(p, padded, bytes_of<Stored>(count));
}

// body(value of the type that a cache is stored in)
template <typename Body>
APH_INLINE int with_cache_number(int32_t number, const Body& body) {
  switch (number) {
    case kInt8: return body(Int8{});
    case kE4m3: return body(E4m3{});
    case kE5m2: return body(E5m2{});
    case kInt4s: return body(Int4s{});
    default: return with_number(number, body);
  }
}

}  // namespace aph::APH_LEVEL
