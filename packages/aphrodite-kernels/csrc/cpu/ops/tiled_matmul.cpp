// y = x Wᵀ (+ bias) for a quantised weight in tiles.

#include "runtime.h"

#include "product.h"
#include "tile_product.h"

struct aph_tiled_matmul_args : aph_product {
  const uint8_t* codes;    // [tiles, blocks, block bytes]
  const uint8_t* scales;   // [tiles, scale bytes]
  const int32_t* columns;  // [32 blocks]: the input that each stored one is; null: in order
  int64_t blocks, width;
  aph_tile_format format;
};

namespace aph::APH_LEVEL {

constexpr int64_t kRowBlock = 128;

static void store_sums(const aph_tiled_matmul_args& args, const float* sums, int64_t begin,
                       int64_t end, int64_t tile) {
  const int64_t column = tile * kTile, left = args.width - column;
  const int64_t width = left < kTile ? left : kTile;
  const Floats bias = args.bias ? load(args.bias + column, width) : zero();
  for (int64_t row = begin; row < end; ++row, sums += kTile) {
    float* result = args.result + row * args.result_stride + column;
    if (width == kTile) store(result, load(sums) + bias);
    else store(result, load(sums) + bias, width);
  }
}

// Rows [begin, end), at most kRowBlock, times tiles [first, last).
static void multiply_tiles(const aph_tiled_matmul_args& args, const Tiles& tiles,
                           const QuantizedRows& x, int64_t begin, int64_t end, int64_t first,
                           int64_t last) {
  Multiply products[kMaxRows + 1];
  products_of(tiles.format, products);
  StripBuffer buffer;
  alignas(64) float sums[kRowBlock * kTile];
  for (int64_t tile = first; tile < last; ++tile) {
    std::memset(sums, 0, (end - begin) * kTile * sizeof(float));
    for (int64_t block = 0; block < tiles.blocks; block += kStripBlocks) {
      const Strip strip = unpack_strip(tiles, tile, block, buffer);
      for (int64_t row = begin; row < end; row += kMaxRows) {
        const int64_t count = end - row < kMaxRows ? end - row : kMaxRows;
        products[count](strip, x, row, sums + (row - begin) * kTile);
      }
    }
    store_sums(args, sums, begin, end, tile);
  }
}

// Rows multiplied with a strip once it is unpacked: their codes should stay in the second-level
// cache from one tile to the next.
static int64_t row_block(int64_t blocks) {
  const int64_t fitting = (512 << 10) / (blocks * kBlock);
  return fitting > kRowBlock ? kRowBlock : fitting < 32 ? 32 : fitting / kMaxRows * kMaxRows;
}

int tiled_matmul(const aph_tiled_matmul_args& args) {
  const Tiles tiles{format_of(args.format), args.codes, args.scales, args.blocks};
  const QuantizedRows x =
      quantize_rows(args.runtime, args.x, args.x_stride, args.columns, args.rows, args.blocks);
  const int64_t height = row_block(args.blocks), count = (args.width + kTile - 1) / kTile;
  const int64_t row_blocks = (args.rows + height - 1) / height;
  // Small enough pieces that a thread which is held up costs little.
  const int64_t even = count / (8 * threads(args.runtime)), most = row_blocks > 1 ? 8 : 64;
  const int64_t group = even < 1 ? 1 : even < most ? even : most;
  const int64_t groups = (count + group - 1) / group;
  parallel_for(args.runtime, row_blocks * groups, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t row = piece / groups * height, tile = piece % groups * group;
      multiply_tiles(args, tiles, x, row, row + height < args.rows ? row + height : args.rows,
                     tile, tile + group < count ? tile + group : count);
    }
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_OP(aph_tiled_matmul, aph_tiled_matmul_args, tiled_matmul)
