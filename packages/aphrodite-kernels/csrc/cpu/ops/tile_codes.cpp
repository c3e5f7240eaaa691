// From rows of codes, packed as little-endian bit streams, to the fields of tiles.
//
// Scales of such a weight are float32 and are put beside the codes by the caller.

#include "runtime.h"

#include "tile_codes.h"

struct aph_tile_codes_args {
  int64_t rows;  // out features
  aph_runtime* runtime;
  const uint8_t* source;  // [rows, row_bytes], the codes of a block in 4 bits bytes
  uint8_t* codes;         // [tiles, blocks, block bytes]
  int64_t row_bytes, blocks;
  aph_tile_format format;
  int32_t bits;  // of a code, 1 to 8
  int32_t flip;  // bits that are turned over in every code
};

namespace aph::APH_LEVEL {

// The codes of one block of a row.
template <int bits>
static void read_codes(const uint8_t* from, int32_t flip, uint8_t* codes) {
  for (int eight = 0; eight < kBlock / 8; ++eight, from += bits, codes += 8) {
    uint64_t word = 0;
    std::memcpy(&word, from, bits);
    for (int i = 0; i < 8; ++i)
      codes[i] = static_cast<uint8_t>((word >> i * bits & ((1 << bits) - 1)) ^ flip);
  }
}

using ReadCodes = void (*)(const uint8_t* from, int32_t flip, uint8_t* codes);

static ReadCodes code_reader(int bits) {
  static constexpr ReadCodes readers[] = {read_codes<1>, read_codes<2>, read_codes<3>,
                                          read_codes<4>, read_codes<5>, read_codes<6>,
                                          read_codes<7>, read_codes<8>};
  return readers[bits - 1];
}

template <Fields fields>
static int pack_rows(const aph_tile_codes_args& args) {
  constexpr int bytes = TileFormat{fields, Scales::kSingle32, 0}.block_bytes();
  const ReadCodes read = code_reader(args.bits);
  const int64_t tiles = (args.rows + kTile - 1) / kTile;
  parallel_for(args.runtime, tiles * args.blocks, 64, [&](int64_t begin, int64_t end, int) {
    uint8_t tile[kUnpacked], row_codes[kBlock];
    for (int64_t at = begin; at < end; ++at) {
      const int64_t first = at / args.blocks * kTile, block = at % args.blocks;
      std::memset(tile, 0, sizeof tile);
      for (int64_t row = first; row < first + kTile && row < args.rows; ++row) {
        read(args.source + row * args.row_bytes + block * 4 * args.bits, args.flip, row_codes);
        place_codes(row_codes, static_cast<int>(row - first), tile);
      }
      pack_block<fields>(tile, args.codes + at * bytes);
    }
  });
  return 0;
}

int tile_codes(const aph_tile_codes_args& args) {
  if (args.bits < 1 || args.bits > 8) return fail("codes have 1 to 8 bits, not %d", args.bits);
  switch (static_cast<Fields>(args.format.fields)) {
    case Fields::kFour:
    case Fields::kLookUp: return pack_rows<Fields::kFour>(args);
    case Fields::kFourOne: return pack_rows<Fields::kFourOne>(args);
    case Fields::kFourTwo: return pack_rows<Fields::kFourTwo>(args);
    case Fields::kTwo: return pack_rows<Fields::kTwo>(args);
    case Fields::kTwoOne: return pack_rows<Fields::kTwoOne>(args);
    case Fields::kEight: return pack_rows<Fields::kEight>(args);
    default: return fail("fields %d do not exist", args.format.fields);
  }
}

}  // namespace aph::APH_LEVEL

APH_OP(aph_tile_codes, aph_tile_codes_args, tile_codes)
