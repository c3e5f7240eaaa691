// Blocks of ggml whose codes are points of a grid: of eight places (IQ1, IQ2) or of four (IQ3).
//
// A grid comes from Python as bytes, for each place of a point which of its numbers it is; signs, and
// the eighth by which IQ1 moves a point, are put above it.
#pragma once

#include "tile_format.h"

namespace aph::APH_LEVEL {

static inline int word_at(const uint8_t* from) { return from[0] | from[1] << 8; }

// Seven signs, the eighth such that their number is even.
static inline int even_signs(uint32_t seven) {
  return static_cast<int>(seven | (__builtin_popcount(seven) & 1u) << 7);
}

// Field i of 4 bits.
static inline int nibble(const uint8_t* from, int i) { return from[i / 2] >> i % 2 * 4 & 15; }

// codes [width] = the point with sign j above place j.
template <int width>
static inline void place_point(const uint8_t* point, int signs, uint8_t* codes) {
  constexpr int above = width == 8 ? 2 : 3;
  for (int j = 0; j < width; ++j)
    codes[j] = static_cast<uint8_t>(point[j] | (signs >> j & 1) << above);
}

// The codes of block `s` of eight.
template <int type>
static void read_points(const uint8_t* source, int s, const uint8_t* grid, uint8_t* codes) {
  uint32_t word;
  switch (type) {
    case kIQ2_XXS:
      std::memcpy(&word, source + 6 + 8 * s, 4);
      for (int l = 0; l < 4; ++l)
        place_point<8>(grid + 8 * source[2 + 8 * s + l], even_signs(word >> 7 * l & 127),
                       codes + 8 * l);
      return;
    case kIQ2_XS:
      for (int l = 0; l < 4; ++l) {
        const int both = word_at(source + 2 + 8 * s + 2 * l);
        place_point<8>(grid + 8 * (both & 511), even_signs(both >> 9), codes + 8 * l);
      }
      return;
    case kIQ2_S:
      for (int l = 0; l < 4; ++l) {
        const int index = source[2 + 4 * s + l] | (source[66 + s] >> 2 * l & 3) << 8;
        place_point<8>(grid + 8 * index, source[34 + 4 * s + l], codes + 8 * l);
      }
      return;
    case kIQ3_XXS:
      std::memcpy(&word, source + 66 + 4 * s, 4);
      for (int l = 0; l < 8; ++l)
        place_point<4>(grid + 4 * source[2 + 8 * s + l],
                       even_signs(word >> 7 * (l / 2) & 127) >> l % 2 * 4, codes + 4 * l);
      return;
    case kIQ3_S:
      for (int l = 0; l < 8; ++l) {
        const int index = source[2 + 8 * s + l] | (source[66 + s] >> l & 1) << 8;
        place_point<4>(grid + 4 * index, nibble(source + 74 + 4 * s, l), codes + 4 * l);
      }
      return;
    case kIQ1_S: {
      const int high = word_at(source + 34 + 2 * s);
      for (int l = 0; l < 4; ++l) {
        const int index = source[2 + 4 * s + l] | (high >> 3 * l & 7) << 8;
        place_point<8>(grid + 8 * index, high >> 15 ? 255 : 0, codes + 8 * l);
      }
      return;
    }
    default:  // IQ1_M
      for (int l = 0; l < 4; ++l) {
        const int high = nibble(source + 32, 4 * s + l), index = source[4 * s + l] | (high & 7) << 8;
        place_point<8>(grid + 8 * index, high >> 3 ? 255 : 0, codes + 8 * l);
      }
  }
}

// What the scale of all is multiplied with for each of 8 blocks or 16 half blocks, before it is
// divided by the format's span.
template <int type>
static void read_point_factors(const uint8_t* source, uint8_t* factors) {
  for (int i = 0; i < kGroup * tile_format(type).halves(); ++i) {
    int twice;
    switch (type) {
      case kIQ2_XXS: twice = source[9 + 8 * i] >> 4; break;
      case kIQ2_XS: twice = nibble(source + 66, i); break;
      case kIQ2_S: twice = nibble(source + 74, i); break;
      case kIQ3_XXS: twice = source[69 + 4 * i] >> 4; break;
      case kIQ3_S: twice = nibble(source + 106, i); break;
      case kIQ1_S: twice = word_at(source + 34 + 2 * i) >> 12 & 7; break;
      default: twice = word_at(source + 48 + i / 4 * 2) >> i % 4 * 3 & 7;
    }
    factors[i] = static_cast<uint8_t>(2 * twice + 1);
  }
}

// The scale of all, a float16: of IQ1_M in the four top nibbles of the words of scales.
template <int type>
static void read_point_scale(const uint8_t* source, uint8_t* half) {
  if (type != kIQ1_M) return static_cast<void>(std::memcpy(half, source, 2));
  half[0] = static_cast<uint8_t>(source[49] >> 4 | (source[51] & 0xf0));
  half[1] = static_cast<uint8_t>(source[53] >> 4 | (source[55] & 0xf0));
}

static constexpr bool is_grid(int type) {
  return type == kIQ1_S || type == kIQ1_M || type == kIQ2_XXS || type == kIQ2_XS ||
         type == kIQ2_S || type == kIQ3_XXS || type == kIQ3_S;
}

}  // namespace aph::APH_LEVEL
