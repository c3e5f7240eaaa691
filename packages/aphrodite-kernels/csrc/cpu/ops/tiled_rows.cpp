// Rows of a quantised weight in tiles, as float32: an embedding look-up.

#include "runtime.h"

#include "tiles.h"

struct aph_tiled_rows_args {
  int64_t rows;
  aph_runtime* runtime;
  const int32_t* index;  // [rows]
  const uint8_t* codes;  // [tiles, blocks, block bytes]
  const uint8_t* scales; // [tiles, scale bytes]
  const int32_t* columns;  // [32 blocks]: the input that each stored one is; null: in order
  float* result;         // [rows, 32 blocks]
  int64_t blocks, width;
  aph_tile_format format;
  float factor;
};

namespace aph::APH_LEVEL {

// result [32 blocks] = factor * row `output` of the tile.
static void read_row(const Tiles& tiles, const int32_t* columns, int64_t tile, int output,
                     float factor, float* result) {
  StripBuffer buffer;
  const int halves = tiles.format.halves(), length = kBlock / halves;
  const float offset = static_cast<float>(1 << tiles.format.offset_log2);
  int64_t column = 0;
  for (int64_t block = 0; block < tiles.blocks; block += kStripBlocks) {
    const Strip strip = unpack_strip(tiles, tile, block, buffer);
    for (int part = 0; part < strip.blocks * halves; ++part) {
      const float scale = strip.scale[part * kTile + output];
      const float minimum = strip.minimum[part * kTile + output];
      for (int i = 0; i < length; ++i) {
        const uint8_t* four = strip.codes + (part * length + i) / 4 * 64 + output * 4;
        const float u = four[i % 4];
        const float value =
            tiles.format.has_minimum() ? scale * u + minimum : scale * (u - offset);
        result[columns ? columns[column] : column] = value * factor;
        ++column;
      }
    }
  }
}

int tiled_rows(const aph_tiled_rows_args& args) {
  const Tiles tiles{format_of(args.format), args.codes, args.scales, args.blocks};
  for (int64_t i = 0; i < args.rows; ++i)
    if (args.index[i] < 0 || args.index[i] >= args.width)
      return fail("row %d of a weight of %lld rows", args.index[i], (long long)args.width);
  parallel_for(args.runtime, args.rows, 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i)
      read_row(tiles, args.columns, args.index[i] / kTile, args.index[i] % kTile, args.factor,
               args.result + i * args.blocks * kBlock);
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_OP(aph_tiled_rows, aph_tiled_rows_args, tiled_rows)
