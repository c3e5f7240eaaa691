// How a quantised weight lies in tiles; nothing here depends on the instruction set.
//
// A tile is 16 outputs, a block 32 inputs. All codes are unsigned and w = scale * (u - offset) +
// minimum, where either the offset or the minimum is nought. Inside (tile, block) eight vectors of
// 64 bytes hold the codes: byte 4 o + j of vector g is the code of output o and input 4 g + j.
//
// Codes of fewer than 8 bits are cut in fields, the vectors of each field packed together:
//   4 bits   4 vectors: low half of vector i is field g = i, high half g = i + 4
//   2 bits   2 vectors: bits 2 s of vector i are field g = i + 2 s
//   1 bit    1 vector: bit g is field g
// A 5-bit code is a 4-bit field and above it a 1-bit field, and so on; the lowest comes first.
//
// Scales lie apart from the codes, each a row of 16, one for each output:
//   Half       per block: scale (float16)
//   HalfPair   per block: scale, minimum (float16)
//   and for blocks in groups of eight, one record per group:
//   Signed32   scale (float16); per block: factor (int8)
//   Signed16   scale (float16); per half block: factor (int8)
//   Pair32     scale, minimum scale (float16); per block: factor, minimum factor (uint8)
//   Pair16     scale, minimum scale (float16); per half block: both factors (4 + 4 bits)
//   and for every `span` blocks or half blocks, so that a group of any length is one record:
//   Single32, Single16          scale (float32)
//   SinglePair32, SinglePair16  scale, minimum (float32)
//
// A look-up has codes of 4 or 3 bits and a table, whose numbers then are the codes. Signed scales are
// divided by `span`.
#pragma once

#include <cstdint>

// As Python fills it.
struct aph_tile_format {
  int32_t fields, scales, offset_log2, span;
  uint8_t table[16];
};

namespace aph::APH_LEVEL {

constexpr int kTile = 16;
constexpr int kBlock = 32;
constexpr int kGroup = 8;
constexpr int kVectors = 8;
constexpr int kUnpacked = kVectors * 64;

enum class Fields : int32_t { kFour, kFourOne, kFourTwo, kTwo, kTwoOne, kEight, kLookUp, kLookUpThree };
enum class Scales : int32_t {
  kHalf, kHalfPair, kSigned32, kSigned16, kPair32, kPair16,
  kSingle32, kSinglePair32, kSingle16, kSinglePair16,
};

static constexpr bool has_minimum(Scales scales) {
  return scales == Scales::kHalfPair || scales == Scales::kPair32 || scales == Scales::kPair16 ||
         scales == Scales::kSinglePair32 || scales == Scales::kSinglePair16;
}
// Scales for every half block instead of every block.
static constexpr bool by_halves(Scales scales) {
  return scales == Scales::kSigned16 || scales == Scales::kPair16 ||
         scales == Scales::kSingle16 || scales == Scales::kSinglePair16;
}

struct TileFormat {
  Fields fields;
  Scales scales;
  int offset_log2;  // of the offset; unused where there is a minimum
  int span = 1;     // blocks or half blocks that share a float32 scale, or what divides a signed one;
                    // 0: no such tiles
  uint8_t table[16] = {};

  constexpr bool has_minimum() const { return APH_LEVEL::has_minimum(scales); }
  constexpr int halves() const { return by_halves(scales) ? 2 : 1; }
  // Whether a code may be 128 or more.
  constexpr bool full_range() const {
    return fields == Fields::kEight || (fields == Fields::kLookUp && offset_log2 == 7);
  }
  constexpr int block_bytes() const {
    switch (fields) {
      case Fields::kFourOne: return 320;
      case Fields::kFourTwo: return 384;
      case Fields::kTwo: return 128;
      case Fields::kTwoOne:
      case Fields::kLookUpThree: return 192;
      case Fields::kEight: return 512;
      default: return 256;
    }
  }
  constexpr int64_t scale_bytes(int64_t blocks) const {  // of one tile
    switch (scales) {
      case Scales::kHalf: return blocks * 32;
      case Scales::kHalfPair: return blocks * 64;
      case Scales::kSigned32: return blocks / kGroup * (32 + kGroup * 16);
      case Scales::kSigned16: return blocks / kGroup * (32 + kGroup * 32);
      case Scales::kPair32:
      case Scales::kPair16: return blocks / kGroup * (64 + kGroup * 32);
      default: return (blocks * halves() + span - 1) / span * (has_minimum() ? 128 : 64);
    }
  }
};

static inline TileFormat format_of(const aph_tile_format& from) {
  TileFormat format{static_cast<Fields>(from.fields), static_cast<Scales>(from.scales),
                    from.offset_log2, from.span};
  for (int i = 0; i < 16; ++i) format.table[i] = from.table[i];
  return format;
}

// The ids of ggml.
enum GgmlType {
  kQ4_0 = 2, kQ4_1 = 3, kQ5_0 = 6, kQ5_1 = 7, kQ8_0 = 8, kQ2_K = 10, kQ3_K = 11, kQ4_K = 12,
  kQ5_K = 13, kQ6_K = 14, kIQ2_XXS = 16, kIQ2_XS = 17, kIQ3_XXS = 18, kIQ1_S = 19, kIQ4_NL = 20,
  kIQ3_S = 21, kIQ2_S = 22, kIQ4_XS = 23, kIQ1_M = 29, kTQ1_0 = 34, kTQ2_0 = 35, kMXFP4 = 39,
  kNVFP4 = 40, kQ1_0 = 41,
};

static constexpr TileFormat iq4_format(Scales scales) {
  return {Fields::kLookUp, scales, 7, 1,
          {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241}};
}

// Numbers plus 64 of a place on a grid (two bits) under its sign.
static constexpr TileFormat iq2_format(Scales scales) {
  return {Fields::kLookUpThree, scales, 6, 8, {72, 89, 107, 64, 56, 39, 21, 64}};
}
// Eight times a place on a grid and an eighth above it, or below, plus 16.
static constexpr TileFormat iq1_format(Scales scales) {
  return {Fields::kLookUpThree, scales, 4, 8, {9, 17, 25, 16, 7, 15, 23, 16}};
}
// Twice the floats of four bits, plus 16.
static constexpr TileFormat fp4_format(Scales scales) {
  return {Fields::kLookUp, scales, 4, 1,
          {16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4}};
}

// How the blocks of a ggml type lie in tiles.
static constexpr TileFormat tile_format(int type) {
  switch (type) {
    case kQ4_0: return {Fields::kFour, Scales::kHalf, 3};
    case kQ4_1: return {Fields::kFour, Scales::kHalfPair, 0};
    case kQ5_0: return {Fields::kFourOne, Scales::kHalf, 4};
    case kQ5_1: return {Fields::kFourOne, Scales::kHalfPair, 0};
    case kQ8_0: return {Fields::kEight, Scales::kHalf, 7};
    case kQ2_K: return {Fields::kTwo, Scales::kPair16, 0};
    case kQ3_K: return {Fields::kTwoOne, Scales::kSigned16, 2};
    case kQ4_K: return {Fields::kFour, Scales::kPair32, 0};
    case kQ5_K: return {Fields::kFourOne, Scales::kPair32, 0};
    case kQ6_K: return {Fields::kFourTwo, Scales::kSigned16, 5};
    case kIQ4_NL: return iq4_format(Scales::kHalf);
    case kIQ4_XS: return iq4_format(Scales::kSigned32);
    case kIQ1_S: return iq1_format(Scales::kSigned32);
    case kIQ1_M: return iq1_format(Scales::kSigned16);
    case kIQ2_XXS: return iq2_format(Scales::kSigned32);
    case kIQ2_XS:
    case kIQ2_S: return iq2_format(Scales::kSigned16);
    case kIQ3_XXS:  // numbers plus 64: eight places on a grid, and below zero
      return {Fields::kLookUp, Scales::kSigned32, 6, 4,
              {68, 76, 84, 92, 100, 108, 116, 126, 60, 52, 44, 36, 28, 20, 12, 2}};
    case kIQ3_S:  // plus 16
      return {Fields::kLookUp, Scales::kSigned32, 4, 1,
              {17, 19, 21, 23, 25, 27, 29, 31, 15, 13, 11, 9, 7, 5, 3, 1}};
    case kMXFP4: return fp4_format(Scales::kSingle32);
    case kNVFP4: return fp4_format(Scales::kSingle16);
    case kQ1_0: return {Fields::kTwo, Scales::kSingle32, 0, 4};
    case kTQ1_0:
    case kTQ2_0: return {Fields::kTwo, Scales::kSingle32, 0, kGroup};
    default: return {Fields::kFour, Scales::kHalf, 0, 0};
  }
}

}  // namespace aph::APH_LEVEL
