// Sixteen codes of one to eight bits from a little-endian bit stream, as float32.
#pragma once

#include "floats.h"

namespace aph::APH_LEVEL {

// Which two bytes hold each code of sixteen, and how far up.
struct CodeWindows {
  uint8_t bytes[kLanes * 4] = {};
  int32_t shifts[kLanes] = {};
  constexpr CodeWindows(int bits) {
    for (int i = 0; i < kLanes; ++i) {
      shifts[i] = i * bits % 8;
      for (int b = 0; b < 4; ++b)
        bytes[4 * i + b] = b < 2 && i * bits / 8 + b < 16 ? static_cast<uint8_t>(i * bits / 8 + b) : 0x80;
    }
  }
};
static constexpr CodeWindows kCodeWindows[] = {1, 2, 3, 4, 5, 6, 7, 8};

// from: sixteen bytes, of which the first 2 * bits count.
APH_INLINE Floats codes_of(const uint8_t* from, int bits) {
  const CodeWindows& windows = kCodeWindows[bits - 1];
  const int32_t mask = (1 << bits) - 1;
#if defined(__AVX512BW__)
  const __m512i all = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)from));
  const __m512i near = _mm512_shuffle_epi8(all, _mm512_loadu_si512(windows.bytes));
  const __m512i code = _mm512_srlv_epi32(near, _mm512_loadu_si512(windows.shifts));
  return {_mm512_cvtepi32_ps(_mm512_and_si512(code, _mm512_set1_epi32(mask)))};
#elif defined(__AVX2__)
  const __m256i all = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)from));
  __m256 halves[2];
  for (int half = 0; half < 2; ++half) {
    const __m256i place = _mm256_loadu_si256((const __m256i*)(windows.bytes + 32 * half));
    const __m256i shift = _mm256_loadu_si256((const __m256i*)(windows.shifts + 8 * half));
    const __m256i code = _mm256_srlv_epi32(_mm256_shuffle_epi8(all, place), shift);
    halves[half] = _mm256_cvtepi32_ps(_mm256_and_si256(code, _mm256_set1_epi32(mask)));
  }
  return {halves[0], halves[1]};
#else
  return each([&](int i) {
    const int at = i * bits / 8;
    const int32_t window = from[at] | (at < 15 ? from[at + 1] << 8 : 0);
    return static_cast<float>(window >> windows.shifts[i] & mask);
  });
#endif
}

}  // namespace aph::APH_LEVEL
