// From rows of ggml blocks to tiles.

#include <cstring>

#include "runtime.h"
#include "integers.h"
#include "tile_codes.h"
#include "tile_grids.h"

struct aph_tile_pack_args {
  int64_t rows;  // of blocks: out features
  aph_runtime* runtime;
  const uint8_t* source;  // [rows, row_bytes]
  uint8_t* codes;         // [tiles, blocks, block bytes]
  uint8_t* scales;        // [tiles, scale bytes]
  const uint8_t* grid;    // of a type whose codes are points of one
  int64_t row_bytes, blocks;
  int32_t type;
};

namespace aph::APH_LEVEL {

// One row's blocks of a ggml type, and where their parts lie.
struct SourceFormat {
  int bytes;    // of one source block
  int blocks;   // of 32 elements in it
  int codes;    // where the lowest field begins
  int scale;    // where the float16 scale lies, the minimum directly after it
};

static constexpr SourceFormat source_format(int type) {
  switch (type) {
    case kQ4_1: return {20, 1, 4, 0};
    case kQ5_0: return {22, 1, 6, 0};
    case kQ5_1: return {24, 1, 8, 0};
    case kQ8_0: return {34, 1, 2, 0};
    case kQ2_K: return {84, 8, 16, 80};
    case kQ3_K: return {110, 8, 32, 108};
    case kQ4_K: return {144, 8, 16, 0};
    case kQ5_K: return {176, 8, 48, 0};
    case kQ6_K: return {210, 8, 0, 208};
    case kIQ4_XS: return {136, 8, 8, 0};
    case kTQ1_0: return {54, 8, 0, 52};
    case kTQ2_0: return {66, 8, 0, 64};
    case kIQ1_S: return {50, 8, 0, 0};
    case kIQ1_M: return {56, 8, 0, 0};
    case kIQ2_XXS: return {66, 8, 0, 0};
    case kIQ2_XS: return {74, 8, 0, 0};
    case kIQ2_S: return {82, 8, 0, 0};
    case kIQ3_XXS: return {98, 8, 0, 0};
    case kIQ3_S: return {110, 8, 0, 0};
    case kMXFP4: return {17, 1, 1, 0};
    case kNVFP4: return {36, 2, 4, 0};
    case kQ1_0: return {18, 4, 2, 0};
    default: return {18, 1, 2, 0};  // Q4_0, IQ4_NL
  }
}

// codes[i] += (from[i] >> shift & mask) << to
static void add_field(const uint8_t* from, int count, int shift, int mask, int to, uint8_t* codes) {
  for (int i = 0; i < count; ++i)
    codes[i] = static_cast<uint8_t>(codes[i] | (from[i] >> shift & mask) << to);
}

// Bit i of a 32-bit word -> bit 4 of code i.
static void add_fifth_bits(const uint8_t* from, uint8_t* codes) {
  uint32_t word;
  std::memcpy(&word, from, 4);
  uint32_t bits[kBlock];
  for (uint32_t i = 0; i < kBlock; ++i) bits[i] = (word >> i & 1) << 4;
  for (int i = 0; i < kBlock; ++i) codes[i] |= static_cast<uint8_t>(bits[i]);
}

// Codes [i] = trit `digit` of byte i: what is above the point in base 3, when the byte is a fraction.
static void add_trits(const uint8_t* from, int count, int digit, uint8_t* codes) {
  constexpr int powers[5] = {1, 3, 9, 27, 81};
  for (int i = 0; i < count; ++i)
    codes[i] = static_cast<uint8_t>((from[i] * powers[digit] & 255) * 3 >> 8);
}

// The unsigned codes of block `s` of a source block, in the order of K.
template <int type>
static void read_codes(const uint8_t* source, int s, const uint8_t* grid, uint8_t* codes) {
  if constexpr (is_grid(type)) return read_points<type>(source, s, grid, codes);
  const uint8_t* low = source + source_format(type).codes;
  std::memset(codes, 0, kBlock);
  switch (type) {
    case kQ8_0:
      for (int i = 0; i < kBlock; ++i) codes[i] = low[i] ^ 0x80;
      return;
    case kTQ1_0:  // bytes: 32 with five trits, 16 with five, 4 with four
      if (s < 5) return add_trits(low, 32, s, codes);
      add_trits(low + 32, 16, 2 * (s - 5), codes);
      if (s < 7) return add_trits(low + 32, 16, 2 * (s - 5) + 1, codes + 16);
      for (int digit = 0; digit < 4; ++digit)
        add_trits(low + 48, 4, digit, codes + 16 + 4 * digit);
      return;
    case kQ1_0:  // a bit of two, one above -1
      for (int i = 0; i < kBlock; ++i)
        codes[i] = static_cast<uint8_t>((low[4 * s + i / 8] >> i % 8 & 1) << 1);
      return;
    case kNVFP4:  // eight bytes: low halves, then high halves
      for (int half = 0; half < 4; ++half)
        add_field(low + 16 * s + half / 2 * 8, 8, half % 2 * 4, 15, 0, codes + 8 * half);
      return;
    case kTQ2_0:
    case kQ2_K:
      add_field(low + s / 4 * 32, 32, s % 4 * 2, 3, 0, codes);
      return;
    case kQ3_K:
      add_field(low + s / 4 * 32, 32, s % 4 * 2, 3, 0, codes);
      add_field(source, 32, s, 1, 2, codes);
      return;
    case kQ5_K:
      add_field(source + 16, 32, s, 1, 4, codes);
      [[fallthrough]];
    case kQ4_K:
      add_field(low + s / 2 * 32, 32, s % 2 * 4, 15, 0, codes);
      return;
    case kQ6_K:
      add_field(low + s / 4 * 64 + s % 2 * 32, 32, s % 4 / 2 * 4, 15, 0, codes);
      add_field(source + 128 + s / 4 * 32, 32, s % 4 * 2, 3, 4, codes);
      return;
    default:  // sixteen bytes: low halves, then high halves
      add_field(low + s * 16, 16, 0, 15, 0, codes);
      add_field(low + s * 16, 16, 4, 15, 0, codes + 16);
      if (type == kQ5_0 || type == kQ5_1) add_fifth_bits(low - 4, codes);
  }
}

// Factors of the scales and minima of a source block of a K-quant: 8 or 16 of each.
template <int type>
static void read_factors(const uint8_t* source, uint8_t* scales, uint8_t* minima) {
  if constexpr (is_grid(type)) return read_point_factors<type>(source, scales);
  switch (type) {
    case kQ2_K:
      std::memcpy(scales, source, 16);  // both in one byte, as in a tile
      return;
    case kQ3_K:
      for (int i = 0; i < 16; ++i) {
        const int low = source[96 + i % 8] >> i / 8 * 4 & 15;
        scales[i] = static_cast<uint8_t>((low | (source[104 + i % 4] >> i / 4 * 2 & 3) << 4) - 32);
      }
      return;
    case kQ6_K:
      std::memcpy(scales, source + 192, 16);
      return;
    case kIQ4_XS:
      for (int i = 0; i < 8; ++i) {
        const int low = source[4 + i / 2] >> i % 2 * 4 & 15;
        scales[i] = static_cast<uint8_t>((low | (source[2 + i / 4] >> i % 4 * 2 & 3) << 4) - 32);
      }
      return;
    default:  // Q4_K, Q5_K: six bits each, the upper two of the last four beside the first four
      for (int i = 0; i < 4; ++i) {
        const uint8_t a = source[4 + i], b = source[8 + i], c = source[12 + i];
        scales[i] = a & 63;
        minima[i] = b & 63;
        scales[i + 4] = static_cast<uint8_t>((c & 15) | a >> 6 << 4);
        minima[i + 4] = static_cast<uint8_t>(c >> 4 | b >> 6 << 4);
      }
  }
}

// 2^(exponent - 128), as floats of four bits are doubled.
static float power_of_two(int exponent) {
  return float_of(exponent < 2 ? 1u << (21 + exponent) : static_cast<uint32_t>(exponent - 1) << 23);
}

// Half of a positive float8_e4m3fn, of NaN 0.
static float half_of_float8(int byte) {
  if (byte == 0x7f) return 0.0f;
  const int exponent = byte >> 3 & 15, mantissa = (byte & 7) + (exponent ? 8 : 0);
  return static_cast<float>(mantissa) * float_of((127u - 11u + (exponent ? exponent : 1u)) << 23);
}

// Scales of output `o` of a tile, from one source block, into that block's or group's record.
template <int type>
static void pack_scales(const uint8_t* source, int o, uint8_t* record) {
  constexpr TileFormat format = tile_format(type);
  const uint8_t* whole = source + source_format(type).scale;
  float* single = reinterpret_cast<float*>(record) + o;
  if constexpr (type == kMXFP4) return static_cast<void>(*single = power_of_two(whole[0]));
  if constexpr (type == kNVFP4) {
    for (int i = 0; i < 4; ++i) single[i * kTile] = half_of_float8(whole[i]);
    return;
  }
  if (format.scales == Scales::kSingle32) return store(single, load(halves(whole), 1), 1);
  if constexpr (is_grid(type)) read_point_scale<type>(source, record + 2 * o);
  else std::memcpy(record + 2 * o, whole, 2);
  if (format.has_minimum()) std::memcpy(record + 32 + 2 * o, whole + 2, 2);
  if (format.scales == Scales::kHalf || format.scales == Scales::kHalfPair) return;
  uint8_t scales[16], minima[8];
  read_factors<type>(source, scales, minima);
  record += format.has_minimum() ? 64 : 32;
  const bool pairs = format.scales == Scales::kPair32;
  for (int i = 0; i < kGroup * format.halves(); ++i)
    record[(pairs ? 2 * i : i) * kTile + o] = scales[i];
  for (int i = 0; pairs && i < kGroup; ++i) record[(2 * i + 1) * kTile + o] = minima[i];
}

// One tile from `rows` (at most 16) rows of source blocks, the missing rows nought. Scales of
// missing rows are not written.
template <int type>
static void pack_tile(const uint8_t* source, int rows, int64_t row_bytes, int64_t blocks,
                      const uint8_t* grid, uint8_t* codes, uint8_t* scales) {
  constexpr TileFormat format = tile_format(type);
  constexpr SourceFormat from = source_format(type);
  const int64_t record = format.scale_bytes(from.blocks);
  uint8_t tile[kUnpacked], row_codes[kBlock];
  for (int64_t b = 0; b < blocks / from.blocks; ++b) {
    const uint8_t* column = source + b * from.bytes;
    for (int o = 0; o < rows; ++o)
      pack_scales<type>(column + o * row_bytes, o, scales + b * record);
    for (int s = 0; s < from.blocks; ++s, codes += format.block_bytes()) {
      std::memset(tile, 0, sizeof tile);
      for (int o = 0; o < rows; ++o) {
        read_codes<type>(column + o * row_bytes, s, grid, row_codes);
        place_codes(row_codes, o, tile);
      }
      pack_block<format.fields>(tile, codes);
    }
  }
}

template <int type>
static int pack_all(const aph_tile_pack_args& args) {
  constexpr TileFormat format = tile_format(type);
  const int64_t code_bytes = args.blocks * format.block_bytes();
  const int64_t scale_bytes = format.scale_bytes(args.blocks);
  const int64_t tiles = (args.rows + kTile - 1) / kTile;
  parallel_for(args.runtime, tiles, 4, [&](int64_t begin, int64_t end, int) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t first = tile * kTile, left = args.rows - first;
      const int rows = left < kTile ? static_cast<int>(left) : kTile;
      uint8_t* scales = args.scales + tile * scale_bytes;
      if (rows < kTile) std::memset(scales, 0, scale_bytes);
      pack_tile<type>(args.source + first * args.row_bytes, rows, args.row_bytes, args.blocks,
                      args.grid, args.codes + tile * code_bytes, scales);
    }
  });
  return 0;
}

int tile_pack(const aph_tile_pack_args& args) {
  switch (args.type) {
    case kQ4_0: return pack_all<kQ4_0>(args);
    case kQ4_1: return pack_all<kQ4_1>(args);
    case kQ5_0: return pack_all<kQ5_0>(args);
    case kQ5_1: return pack_all<kQ5_1>(args);
    case kQ8_0: return pack_all<kQ8_0>(args);
    case kQ2_K: return pack_all<kQ2_K>(args);
    case kQ3_K: return pack_all<kQ3_K>(args);
    case kQ4_K: return pack_all<kQ4_K>(args);
    case kQ5_K: return pack_all<kQ5_K>(args);
    case kQ6_K: return pack_all<kQ6_K>(args);
    case kQ1_0: return pack_all<kQ1_0>(args);
    case kNVFP4: return pack_all<kNVFP4>(args);
    case kMXFP4: return pack_all<kMXFP4>(args);
    case kIQ3_S: return pack_all<kIQ3_S>(args);
    case kIQ3_XXS: return pack_all<kIQ3_XXS>(args);
    case kIQ2_S: return pack_all<kIQ2_S>(args);
    case kIQ2_XS: return pack_all<kIQ2_XS>(args);
    case kIQ2_XXS: return pack_all<kIQ2_XXS>(args);
    case kIQ1_M: return pack_all<kIQ1_M>(args);
    case kIQ1_S: return pack_all<kIQ1_S>(args);
    case kIQ4_NL: return pack_all<kIQ4_NL>(args);
    case kIQ4_XS: return pack_all<kIQ4_XS>(args);
    case kTQ1_0: return pack_all<kTQ1_0>(args);
    case kTQ2_0: return pack_all<kTQ2_0>(args);
    default: return fail("ggml type %d has no tiles", args.type);
  }
}

}  // namespace aph::APH_LEVEL

APH_OP(aph_tile_pack, aph_tile_pack_args, tile_pack)

#if defined(APH_LEVEL_generic)
// How the blocks of a ggml type lie in tiles; 0 where the type has none.
APH_EXPORT int aph_tile_format_of(int type, aph_tile_format* to) {
  const auto format = aph::generic::tile_format(type);
  to->fields = static_cast<int32_t>(format.fields);
  to->scales = static_cast<int32_t>(format.scales);
  to->offset_log2 = format.offset_log2;
  to->span = format.span;
  std::memcpy(to->table, format.table, sizeof to->table);
  return format.span;
}
// Bytes that one tile's codes and scales take.
APH_EXPORT int64_t aph_tile_code_bytes(const aph_tile_format* format, int64_t blocks) {
  return blocks * aph::generic::format_of(*format).block_bytes();
}
APH_EXPORT int64_t aph_tile_scale_bytes(const aph_tile_format* format, int64_t blocks) {
  return aph::generic::format_of(*format).scale_bytes(blocks);
}
#endif
