// Weights of eight or four bits that are floats: widened to float32 as they are read.
#pragma once

#include "cache_numbers.h"

// As Python fills it.
struct aph_narrow {
  const uint8_t* codes;  // [width, code_stride] float8_e4m3fn, or two codes of four bits to a byte
  const float* table;    // 16 numbers of each row, or of all (table_stride 0); null: codes are floats
  const float* scale;    // [ceil(width / height), scale_stride]; null: all are 1
  int64_t code_stride, table_stride, scale_stride;
  int64_t depth, width;
  int64_t height, group;  // rows and columns that share a scale
};

namespace aph::APH_LEVEL {

struct FloatRow {
  const E4m3* codes;
  template <typename Lanes>
  APH_INLINE_MEMBER Floats get(int64_t i, Lanes lanes) const { return lanes.get(codes + i); }
};

struct TableRow {
  const uint8_t* codes;
  Floats table;
  APH_INLINE_MEMBER Floats get(int64_t i, Whole) const { return look_up(table, codes + i / 2); }
  APH_INLINE_MEMBER Floats get(int64_t i, Part part) const {
    uint8_t padded[kLanes / 2] = {};
    std::memcpy(padded, codes + i / 2, (part.count + 1) / 2);
    return look_up(table, padded);
  }
};

// to [length] = elements of row `output` from `first` on.
template <typename Row>
static void widen_row(const Row& row, const aph_narrow& weight, int64_t output, int64_t first,
                      int64_t length, float* to) {
  const float* scales =
      weight.scale ? weight.scale + output / weight.height * weight.scale_stride : nullptr;
  for (int64_t i = first, last = first + length; i < last;) {
    const int64_t group = i / weight.group, end = (group + 1) * weight.group;
    const int64_t count = (end < last ? end : last) - i;
    const Floats scale = all_floats(scales ? scales[group] : 1.0f);
    for_lanes(count, [&](int64_t j, auto lanes) {
      lanes.put(to + i - first + j, row.get(i + j, lanes) * scale);
    });
    i += count;
  }
}

static void widen_row(const aph_narrow& weight, int64_t output, int64_t first, int64_t length,
                      float* to) {
  const uint8_t* codes = weight.codes + output * weight.code_stride;
  if (weight.table) {
    const TableRow row{codes, load(weight.table + output * weight.table_stride)};
    widen_row(row, weight, output, first, length, to);
  } else {
    const FloatRow row{reinterpret_cast<const E4m3*>(codes)};
    widen_row(row, weight, output, first, length, to);
  }
}

}  // namespace aph::APH_LEVEL
