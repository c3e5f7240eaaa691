// From packed tiles to what the products read: eight vectors of codes and float32 scales per block.
#pragma once

#include "integers.h"
#include "tile_format.h"

namespace aph::APH_LEVEL {

// Vector g of a 1-, 2- or 4-bit field, its bits put at `to`, the rest nought.
template <int bits, int to, int g>
APH_INLINE Bytes field(const uint8_t* packed) {
  constexpr int vectors = bits;  // 8 vectors of 64 fields of `bits` bits fill `bits` vectors
  constexpr int from = g / vectors * bits;
  constexpr uint8_t mask = ((1 << bits) - 1) << to;
  return shift_right<from - to>(load_bytes(packed + g % vectors * 64)) & all_bytes(mask);
}

template <Fields fields, int g>
APH_INLINE Bytes codes_of(const uint8_t* packed, const uint8_t* table) {
  switch (fields) {
    case Fields::kFour: return field<4, 0, g>(packed);
    case Fields::kFourOne: return field<4, 0, g>(packed) | field<1, 4, g>(packed + 256);
    case Fields::kFourTwo: return field<4, 0, g>(packed) | field<2, 4, g>(packed + 256);
    case Fields::kTwo: return field<2, 0, g>(packed);
    case Fields::kTwoOne: return field<2, 0, g>(packed) | field<1, 2, g>(packed + 128);
    case Fields::kLookUp: return look_up(table, field<4, 0, g>(packed));
    case Fields::kLookUpThree:
      return look_up(table, field<2, 0, g>(packed) | field<1, 2, g>(packed + 128));
    default: return load_bytes(packed + g * 64);
  }
}

template <Fields fields, int g = 0>
APH_INLINE void unpack_block(const uint8_t* packed, const uint8_t* table, uint8_t* codes) {
  if constexpr (g < kVectors) {
    store_bytes(codes + g * 64, codes_of<fields, g>(packed, table));
    unpack_block<fields, g + 1>(packed, table, codes);
  }
}

template <Fields fields>
static void unpack_codes(const uint8_t* packed, const uint8_t* table, int blocks, uint8_t* codes) {
  constexpr int bytes = TileFormat{fields, Scales::kHalf, 0}.block_bytes();
  for (int b = 0; b < blocks; ++b)
    unpack_block<fields>(packed + b * bytes, table, codes + b * kUnpacked);
}

// `count` rows from row `first` of scales that each stand for `span` rows.
template <bool pair>
static void repeat_scales(const uint8_t* packed, int64_t first, int span, int count, float* scale,
                          float* minimum) {
  const float* record = reinterpret_cast<const float*>(packed) + first / span * (pair ? 32 : 16);
  int left = span - static_cast<int>(first % span);
  for (int i = 0; i < count; ++i, scale += 16, minimum += 16, --left) {
    if (!left) {
      record += pair ? 32 : 16;
      left = span;
    }
    store(scale, load(record));
    if constexpr (pair) store(minimum, load(record + 16));
  }
}

// `blocks` blocks from block `first` (a multiple of 8) of a tile -> rows of 16 scales and, where
// the format has them, minima: one row per block or half block.
template <Scales scales>
static void unpack_scales(const uint8_t* packed, int span, int64_t first, int blocks, float* scale,
                          float* minimum) {
  if constexpr (scales >= Scales::kSingle32) {
    constexpr int halves = by_halves(scales) ? 2 : 1;
    return repeat_scales<has_minimum(scales)>(packed, first * halves, span, blocks * halves, scale,
                                              minimum);
  }
  packed += TileFormat{Fields::kFour, scales, 0}.scale_bytes(first);
  if constexpr (scales == Scales::kHalf) {
    for (int b = 0; b < blocks; ++b)
      store(scale + b * 16, load(halves(packed + b * 32)));
  } else if constexpr (scales == Scales::kHalfPair) {
    for (int b = 0; b < blocks; ++b) {
      store(scale + b * 16, load(halves(packed + b * 64)));
      store(minimum + b * 16, load(halves(packed + b * 64 + 32)));
    }
  } else if constexpr (scales == Scales::kSigned32 || scales == Scales::kSigned16) {
    constexpr int rows = scales == Scales::kSigned16 ? 2 * kGroup : kGroup;
    const Floats part = all_floats(1.0f / static_cast<float>(span));  // span: a power of two
    for (int group = 0; group < blocks / kGroup; ++group, packed += 32 + rows * 16) {
      const Floats whole = load(halves(packed)) * part;
      for (int i = 0; i < rows; ++i, scale += 16)
        store(scale, whole * to_floats(load_signed(packed + 32 + i * 16)));
    }
  } else if constexpr (scales == Scales::kPair32 || scales == Scales::kPair16) {
    constexpr int rows = scales == Scales::kPair16 ? 2 * kGroup : kGroup;
    for (int group = 0; group < blocks / kGroup; ++group, packed += 64 + kGroup * 32) {
      const Floats whole = load(halves(packed));
      const Floats lowest = load(halves(packed + 32)) * all_floats(-1.0f);
      for (int i = 0; i < rows; ++i, scale += 16, minimum += 16) {
        if constexpr (scales == Scales::kPair32) {
          store(scale, whole * to_floats(load_unsigned(packed + 64 + i * 32)));
          store(minimum, lowest * to_floats(load_unsigned(packed + 64 + i * 32 + 16)));
        } else {
          const Ints both = load_unsigned(packed + 64 + i * 16);
          store(scale, whole * to_floats(both & all_ints(15)));
          store(minimum, lowest * to_floats(shift_right<4>(both)));
        }
      }
    }
  }
}

using UnpackCodes = void (*)(const uint8_t* packed, const uint8_t* table, int blocks,
                             uint8_t* codes);
using UnpackScales = void (*)(const uint8_t* packed, int span, int64_t first, int blocks,
                              float* scale, float* minimum);

static UnpackCodes code_unpacker(Fields fields) {
  switch (fields) {
    case Fields::kFour: return unpack_codes<Fields::kFour>;
    case Fields::kFourOne: return unpack_codes<Fields::kFourOne>;
    case Fields::kFourTwo: return unpack_codes<Fields::kFourTwo>;
    case Fields::kTwo: return unpack_codes<Fields::kTwo>;
    case Fields::kTwoOne: return unpack_codes<Fields::kTwoOne>;
    case Fields::kLookUp: return unpack_codes<Fields::kLookUp>;
    case Fields::kLookUpThree: return unpack_codes<Fields::kLookUpThree>;
    default: return unpack_codes<Fields::kEight>;
  }
}

static UnpackScales scale_unpacker(Scales scales) {
  switch (scales) {
    case Scales::kHalf: return unpack_scales<Scales::kHalf>;
    case Scales::kHalfPair: return unpack_scales<Scales::kHalfPair>;
    case Scales::kSigned32: return unpack_scales<Scales::kSigned32>;
    case Scales::kSigned16: return unpack_scales<Scales::kSigned16>;
    case Scales::kPair32: return unpack_scales<Scales::kPair32>;
    case Scales::kPair16: return unpack_scales<Scales::kPair16>;
    case Scales::kSingle32: return unpack_scales<Scales::kSingle32>;
    case Scales::kSinglePair32: return unpack_scales<Scales::kSinglePair32>;
    case Scales::kSingle16: return unpack_scales<Scales::kSingle16>;
    default: return unpack_scales<Scales::kSinglePair16>;
  }
}

}  // namespace aph::APH_LEVEL
