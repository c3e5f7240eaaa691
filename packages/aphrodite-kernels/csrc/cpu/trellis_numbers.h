// From the bits of a trellis to its numbers, sixteen at a time; exactly those of the layout.
#pragma once

#include "floats.h"

namespace aph::APH_LEVEL {

enum class Codebook : int32_t { kInst3, kMcg, kMul1 };  // as Python numbers them

constexpr int kRingHalves = 1 + 16 * 8 + 16;  // one in front, and what is read behind the end

// Two symbols that follow each other have pair_bits, the first of an odd number the smaller part.

// Where the states of sixteen symbols lie in the halves that follow the one before their first bit,
// of which `skipped` bits belong to a symbol before.
template <int pair_bits, int skipped>
struct Windows {
  static constexpr int end_of(int symbol) { return skipped + (symbol + 1) * pair_bits / 2; }
  static constexpr int kSecond = end_of(8) / 16;  // the half in which symbol 8 ends
  uint16_t halves[32] = {};                      // the lower one of a word first
  int32_t shifts[16] = {};
  uint8_t bytes[2][32] = {};  // of eight words, from half 0 and from kSecond
  constexpr Windows() {
    for (int i = 0; i < 16; ++i) {
      const int first = end_of(i) / 16, from = first - (i < 8 ? 0 : kSecond);
      shifts[i] = 16 - end_of(i) % 16;
      halves[2 * i] = static_cast<uint16_t>(first + 1);
      halves[2 * i + 1] = static_cast<uint16_t>(first);
      for (int b = 0; b < 4; ++b)
        bytes[i / 8][i % 8 * 4 + b] = static_cast<uint8_t>(2 * from + (b + 2) % 4);
    }
  }
};
template <int pair_bits, int skipped>
static constexpr Windows<pair_bits, skipped> kWindows{};

// A tile's halves in the order of the stream, behind the last one of the ring.
template <int pair_bits>
APH_INLINE void unroll_ring(const uint8_t* tile, uint16_t* ring) {
#if defined(__AVX2__)
  for (int i = 0; i < pair_bits / 2; ++i) {
    const __m256i words = _mm256_loadu_si256((const __m256i*)(tile + 32 * i));
    const __m256i turned = _mm256_or_si256(_mm256_slli_epi32(words, 16),
                                           _mm256_srli_epi32(words, 16));
    _mm256_storeu_si256((__m256i*)(ring + 1 + 16 * i), turned);
  }
  constexpr int kUnrolled = pair_bits / 2 * 16;
#else
  constexpr int kUnrolled = 0;
#endif
  for (int i = kUnrolled; i < 8 * pair_bits; ++i) std::memcpy(ring + 1 + i, tile + 2 * (i ^ 1), 2);
  std::memcpy(ring, tile + 16 * pair_bits - 4, 2);
}

#if defined(__AVX512BW__)

// A factor of which the compiler knows nothing, or it multiplies by a dozen shifts and additions.
APH_INLINE __m512i factors(uint32_t value) {
  __m512i all = _mm512_set1_epi32(static_cast<int32_t>(value));
  asm("" : "+v"(all));
  return all;
}
template <int pair_bits, int skipped>
APH_INLINE __m512i states(const uint16_t* at) {
  constexpr const Windows<pair_bits, skipped>& windows = kWindows<pair_bits, skipped>;
  const __m256i near = _mm256_loadu_si256((const __m256i*)at);
  const __m512i words = _mm512_permutexvar_epi16(_mm512_loadu_si512(windows.halves),
                                                 _mm512_castsi256_si512(near));
  return _mm512_and_si512(_mm512_srlv_epi32(words, _mm512_loadu_si512(windows.shifts)),
                          _mm512_set1_epi32(0xffff));
}
APH_INLINE Floats as_half(Floats a) { return widen_half(narrow_half(a)); }
template <Codebook book>
APH_INLINE Floats numbers_of(__m512i state) {
  if constexpr (book == Codebook::kMul1) {
    const __m512i mixed = _mm512_mullo_epi32(state, factors(0x83DCD12D));
    const __m512i pairs = _mm512_maddubs_epi16(mixed, _mm512_set1_epi8(1));
    const __m512i total = _mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
    return as_half(multiply_add({_mm512_cvtepi32_ps(total)}, all_floats(887.0f / (1 << 17)),
                                all_floats(-3.453125f)));
  } else {
    constexpr bool mcg = book == Codebook::kMcg;
    __m512i mixed = _mm512_mullo_epi32(state, factors(mcg ? 0xCBAC1FED : 89226354));
    if constexpr (!mcg) mixed = _mm512_add_epi32(mixed, _mm512_set1_epi32(64248484));
    const __m512i both = _mm512_ternarylogic_epi32(  // (mixed & 0x8fff8fff) ^ 0x3b603b60
        mixed, _mm512_set1_epi32(0x8FFF8FFF), _mm512_set1_epi32(0x3B603B60), 0x6a);
    const Floats low = widen_half(_mm512_cvtepi32_epi16(both));
    return as_half(low + widen_half(_mm512_cvtepi32_epi16(_mm512_srli_epi32(both, 16))));
  }
}
template <int pair_bits, int skipped, Codebook book>
APH_INLINE Floats numbers(const uint16_t* at) {
  return numbers_of<book>(states<pair_bits, skipped>(at));
}

#elif defined(__AVX2__)

// A factor of which the compiler knows nothing, or it multiplies by a dozen shifts and additions.
APH_INLINE __m256i factors(uint32_t value) {
  __m256i all = _mm256_set1_epi32(static_cast<int32_t>(value));
  asm("" : "+x"(all));
  return all;
}
template <int pair_bits, int skipped>
APH_INLINE __m256i states(const uint16_t* at, int half) {
  constexpr const Windows<pair_bits, skipped>& windows = kWindows<pair_bits, skipped>;
  const __m256i near = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)at));
  const __m256i place = _mm256_loadu_si256((const __m256i*)windows.bytes[half]);
  const __m256i shift = _mm256_loadu_si256((const __m256i*)(windows.shifts + 8 * half));
  return _mm256_and_si256(_mm256_srlv_epi32(_mm256_shuffle_epi8(near, place), shift),
                          _mm256_set1_epi32(0xffff));
}
APH_INLINE __m256 widen_words(__m256i halves) {
  return _mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(halves),
                                          _mm256_extracti128_si256(halves, 1)));
}
APH_INLINE __m256 as_half(__m256 a) {
  return _mm256_cvtph_ps(_mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
template <Codebook book>
APH_INLINE __m256 numbers_of(__m256i state) {
  if constexpr (book == Codebook::kMul1) {
    const __m256i mixed = _mm256_mullo_epi32(state, factors(0x83DCD12D));
    const __m256i pairs = _mm256_maddubs_epi16(mixed, _mm256_set1_epi8(1));
    const __m256 total = _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    return as_half(_mm256_fmadd_ps(total, _mm256_set1_ps(887.0f / (1 << 17)),
                                   _mm256_set1_ps(-3.453125f)));
  } else {
    constexpr bool mcg = book == Codebook::kMcg;
    __m256i mixed = _mm256_mullo_epi32(state, factors(mcg ? 0xCBAC1FED : 89226354));
    if constexpr (!mcg) mixed = _mm256_add_epi32(mixed, _mm256_set1_epi32(64248484));
    mixed = _mm256_xor_si256(_mm256_and_si256(mixed, _mm256_set1_epi32(0x8FFF8FFF)),
                             _mm256_set1_epi32(0x3B603B60));
    const __m256 low = widen_words(_mm256_and_si256(mixed, _mm256_set1_epi32(0xffff)));
    return as_half(_mm256_add_ps(low, widen_words(_mm256_srli_epi32(mixed, 16))));
  }
}
template <int pair_bits, int skipped, Codebook book>
APH_INLINE Floats numbers(const uint16_t* at) {
  const uint16_t* second = at + Windows<pair_bits, skipped>::kSecond;
  return {numbers_of<book>(states<pair_bits, skipped>(at, 0)),
          numbers_of<book>(states<pair_bits, skipped>(second, 1))};
}

#else

APH_INLINE float as_half(float a) {
  Half half;
  narrow(a, &half);
  return widen(half);
}
template <Codebook book>
APH_INLINE float number_of(uint32_t state) {
  if constexpr (book == Codebook::kMul1) {
    const uint32_t mixed = state * 0x83DCD12Du;
    const uint32_t total = (mixed & 255) + (mixed >> 8 & 255) + (mixed >> 16 & 255) + (mixed >> 24);
    return as_half(static_cast<float>(total) * (887.0f / (1 << 17)) - 3.453125f);
  }
  uint32_t mixed = book == Codebook::kMcg ? state * 0xCBAC1FEDu : state * 89226354u + 64248484u;
  mixed = (mixed & 0x8FFF8FFFu) ^ 0x3B603B60u;
  const Half low{static_cast<uint16_t>(mixed)}, high{static_cast<uint16_t>(mixed >> 16)};
  return as_half(widen(low) + widen(high));
}
template <int pair_bits, int skipped, Codebook book>
APH_INLINE Floats numbers(const uint16_t* at) {
  constexpr const Windows<pair_bits, skipped>& windows = kWindows<pair_bits, skipped>;
  return each([&](int i) {
    const uint32_t high = at[windows.halves[2 * i + 1]], low = at[windows.halves[2 * i]];
    return number_of<book>((high << 16 | low) >> windows.shifts[i] & 0xffff);
  });
}

#endif

// Sixteen numbers of a tile, from those of vector v on; v is even or, if `odd`, one more.
template <int pair_bits, Codebook book, bool odd>
APH_INLINE Floats numbers_from(const uint16_t* ring, int v) {
  constexpr int skipped = odd ? pair_bits % 2 * 8 : 0;
  return numbers<pair_bits, skipped, book>(ring + (v * pair_bits) / 2);
}

}  // namespace aph::APH_LEVEL
