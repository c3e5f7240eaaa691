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

// Rows of codes. What they give is to be multiplied with kFactor times a scale.
struct FloatRow {
  static constexpr float kFactor = 256.0f;
  const uint8_t* codes;
  FloatRow(const aph_narrow& weight, int64_t output)
      : codes(weight.codes + output * weight.code_stride) {}
  const uint8_t* at(int64_t i) const { return codes + i; }
  APH_INLINE_MEMBER Floats get(int64_t i, Whole) const {
    return load_small(reinterpret_cast<const E4m3*>(codes + i));
  }
  APH_INLINE_MEMBER Floats get(int64_t i, Part part) const {
    alignas(16) E4m3 padded[kLanes] = {};
    std::memcpy(padded, codes + i, part.count);
    return load_small(padded);
  }
};

struct TableRow {
  static constexpr float kFactor = 1.0f;
  const uint8_t* codes;
  Floats table;
  TableRow(const aph_narrow& weight, int64_t output)
      : codes(weight.codes + output * weight.code_stride),
        table(load(weight.table + output * weight.table_stride)) {}
  const uint8_t* at(int64_t i) const { return codes + i / 2; }
  APH_INLINE_MEMBER Floats get(int64_t i, Whole) const { return look_up(table, codes + i / 2); }
  APH_INLINE_MEMBER Floats get(int64_t i, Part part) const {
    uint8_t padded[kLanes / 2] = {};
    std::memcpy(padded, codes + i / 2, (part.count + 1) / 2);
    return look_up(table, padded);
  }
};

// Elements i to i + 31.
template <typename Row>
APH_INLINE void get_pair(const Row& row, int64_t i, Floats& first, Floats& second) {
  first = row.get(i, Whole{});
  second = row.get(i + kLanes, Whole{});
}
#if defined(__AVX512BW__)
APH_INLINE void get_pair(const FloatRow& row, int64_t i, Floats& first, Floats& second) {
  const __m256i bytes = _mm256_loadu_si256((const __m256i*)(row.codes + i));
  const __m512i words = _mm512_slli_epi16(_mm512_cvtepi8_epi16(bytes), 7);
  const __mmask32 nan = _mm256_cmpeq_epi8_mask(_mm256_or_si256(bytes, _mm256_set1_epi8(-128)),
                                               _mm256_set1_epi8(-1));
  __m512i half = _mm512_and_si512(words, _mm512_set1_epi16(-0x4080));
  half = _mm512_or_si512(half, _mm512_maskz_set1_epi16(nan, 0x7c00));
  first = widen_half(_mm512_castsi512_si256(half));
  second = widen_half(_mm512_extracti64x4_epi64(half, 1));
}
#endif

// Calls body with the kind of rows that a weight has.
template <typename Body>
APH_INLINE void with_rows(const aph_narrow& weight, const Body& body) {
  if (weight.table) body([&](int64_t output) { return TableRow(weight, output); });
  else body([&](int64_t output) { return FloatRow(weight, output); });
}

APH_INLINE const float* scales_of(const aph_narrow& weight, int64_t output) {
  return weight.scale ? weight.scale + output / weight.height * weight.scale_stride : nullptr;
}

// body(group, i, count) for each part of [first, first + length) that has one scale.
template <typename Body>
APH_INLINE void for_groups(int64_t size, int64_t first, int64_t length, const Body& body) {
  const int64_t last = first + length;
  for (int64_t i = first, group = first / size, end = (group + 1) * size; i < last;) {
    body(group, i, (end < last ? end : last) - i);
    i = end;
    end += size;
    ++group;
  }
}

// What the numbers of a group are multiplied with.
template <typename Row>
APH_INLINE Floats scale_of(const float* scales, int64_t group) {
  return all_floats(scales ? scales[group] : 1.0f) * all_floats(Row::kFactor);
}

// to [length] = elements of row `output` from `first` on.
template <typename Row>
static void widen_row(const Row& row, const float* scales, int64_t group_size, int64_t first,
                      int64_t length, float* to) {
  for_groups(group_size, first, length, [&](int64_t group, int64_t i, int64_t count) {
    const Floats scale = scale_of<Row>(scales, group);
    for_lanes(count, [&](int64_t j, auto lanes) {
      lanes.put(to + i - first + j, row.get(i + j, lanes) * scale);
    });
  });
}

static void widen_row(const aph_narrow& weight, int64_t output, int64_t first, int64_t length,
                      float* to) {
  with_rows(weight, [&](auto row_of) {
    widen_row(row_of(output), scales_of(weight, output), weight.group, first, length, to);
  });
}

}  // namespace aph::APH_LEVEL
