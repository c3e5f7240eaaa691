// From unsigned codes to the fields of a tile's block.
#pragma once

#include <cstring>

#include "tile_format.h"

namespace aph::APH_LEVEL {

// The codes of output `o`, in the order of K, into eight vectors.
static inline void place_codes(const uint8_t* codes, int o, uint8_t* tile) {
  for (int g = 0; g < kVectors; ++g) std::memcpy(tile + g * 64 + o * 4, codes + g * 4, 4);
}

// A field of `bits` bits at `from` of eight code vectors -> `bits` vectors.
template <int bits, int from>
static void pack_field(const uint8_t* codes, uint8_t* packed) {
  constexpr uint8_t mask = (1 << bits) - 1;
  for (int vector = 0; vector < bits; ++vector) {
    uint8_t sum[64] = {};
    for (int part = 0; part < 8 / bits; ++part) {
      const uint8_t* field = codes + (vector + part * bits) * 64;
      for (int i = 0; i < 64; ++i)
        sum[i] |= static_cast<uint8_t>((field[i] >> from & mask) << part * bits);
    }
    std::memcpy(packed + vector * 64, sum, sizeof sum);
  }
}

template <Fields fields>
static void pack_block(const uint8_t* codes, uint8_t* packed) {
  switch (fields) {
    case Fields::kFour:
    case Fields::kLookUp: pack_field<4, 0>(codes, packed); return;
    case Fields::kFourOne:
      pack_field<4, 0>(codes, packed);
      pack_field<1, 4>(codes, packed + 256);
      return;
    case Fields::kFourTwo:
      pack_field<4, 0>(codes, packed);
      pack_field<2, 4>(codes, packed + 256);
      return;
    case Fields::kTwo: pack_field<2, 0>(codes, packed); return;
    case Fields::kTwoOne:
    case Fields::kLookUpThree:
      pack_field<2, 0>(codes, packed);
      pack_field<1, 2>(codes, packed + 128);
      return;
    default: std::memcpy(packed, codes, kUnpacked);
  }
}

}  // namespace aph::APH_LEVEL
