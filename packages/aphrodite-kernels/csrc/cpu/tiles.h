// A quantised weight in tiles, read a strip at a time: what its product and its look-up share.
#pragma once

#include "tile_unpack.h"

namespace aph::APH_LEVEL {

constexpr int kStripBlocks = 16;

struct Tiles {
  const TileFormat format;
  const uint8_t* codes;   // [tiles, blocks, block bytes]
  const uint8_t* scales;  // [tiles, scale bytes]
  const int64_t blocks;
  const UnpackCodes unpack_codes = code_unpacker(format.fields);
  const UnpackScales unpack_scales = scale_unpacker(format.scales);
};

// Where one strip is unpacked to: it stays in the first-level cache while rows are multiplied.
struct StripBuffer {
  alignas(64) uint8_t codes[kStripBlocks * kUnpacked];
  alignas(64) float scale[kStripBlocks * 2 * kTile];
  alignas(64) float minimum[kStripBlocks * 2 * kTile];
};

// Blocks of one tile, unpacked.
struct Strip {
  const uint8_t* codes;  // [blocks, 8, 64]
  const float* scale;    // [blocks or half blocks, 16]
  const float* minimum;  // the same; not read where the format has an offset
  int64_t first;
  int blocks;
  int offset_log2;
  const uint8_t* ahead;  // the packed codes that follow
  int block_bytes;
};

// The strip of a tile that begins at block `first`, a multiple of kStripBlocks.
static Strip unpack_strip(const Tiles& tiles, int64_t tile, int64_t first, StripBuffer& buffer) {
  const int64_t left = tiles.blocks - first;
  const int blocks = left < kStripBlocks ? static_cast<int>(left) : kStripBlocks;
  const int block_bytes = tiles.format.block_bytes();
  const uint8_t* packed = tiles.codes + (tile * tiles.blocks + first) * block_bytes;
  tiles.unpack_scales(tiles.scales + tile * tiles.format.scale_bytes(tiles.blocks),
                      tiles.format.span, first, blocks, buffer.scale, buffer.minimum);
  const bool in_place = tiles.format.fields == Fields::kEight;
  if (!in_place) tiles.unpack_codes(packed, tiles.format.table, blocks, buffer.codes);
  return {in_place ? packed : buffer.codes, buffer.scale, buffer.minimum, first, blocks,
          tiles.format.offset_log2, packed + blocks * block_bytes, block_bytes};
}

}  // namespace aph::APH_LEVEL
