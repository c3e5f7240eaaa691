// Weights that are sums of codebook entries, each a rectangle of outputs by inputs.
#pragma once

#include "numbers.h"
#include "widened_product.h"

constexpr int kMostBooks = 8;

// As Python fills them.
struct aph_book {
  const uint8_t* codes;  // [vectors, across], of one byte or two
  const void* entries;   // [E, height, width], and kLanes numbers behind
  int64_t code_bytes;
  float factor;
};
struct aph_codebook {
  aph_book books[kMostBooks];
  const float* scale;     // [vectors], or null
  int64_t count;          // of books
  int64_t across;         // rectangles along K
  int64_t height, width;  // of a rectangle
  int64_t outputs;
  int32_t number;         // of the entries
};

namespace aph::APH_LEVEL {

// The entry of each rectangle, from its row `row` on, summed over the books. Only the first `width`
// numbers are of it.
template <typename Number>
APH_INLINE Floats entry(const aph_codebook& weight, int64_t rectangle, int64_t from) {
  const int64_t size = weight.height * weight.width;
  Floats total = zero();
  for (int64_t b = 0; b < weight.count; ++b) {
    const aph_book& book = weight.books[b];
    uint16_t code = book.codes[rectangle * book.code_bytes];
    if (book.code_bytes == 2) std::memcpy(&code, book.codes + rectangle * 2, 2);
    const Number* found = static_cast<const Number*>(book.entries) + code * size + from;
    total = multiply_add(load(found), all_floats(book.factor), total);
  }
  return total;
}

// Rectangles of rows: each vector is written over what the one before wrote too much.
template <typename Number>
static void widen_flat(const aph_codebook& weight, int64_t vector, int64_t height,
                       const Wide& wide, float* to) {
  const Floats scale = all_floats(weight.scale ? weight.scale[vector] : 1.0f);
  const int64_t begin = vector * weight.across + wide.first / weight.width;
  for (int64_t row = 0; row < height; ++row)
    for (int64_t i = 0; i < wide.length / weight.width; ++i)
      for (int64_t k = 0; k < weight.width; k += kLanes)
        store(to + row * wide.stride + i * weight.width + k,
              entry<Number>(weight, begin + i, row * weight.width + k) * scale);
}

// Rectangles of one column: sixteen of them are turned over at a time.
template <typename Number>
static void widen_tall(const aph_codebook& weight, int64_t vector, int64_t height,
                       const Wide& wide, float* to) {
  const Floats scale = all_floats(weight.scale ? weight.scale[vector] : 1.0f);
  const int64_t begin = vector * weight.across + wide.first;
  for (int64_t row = 0; row < height; row += kLanes)
    for (int64_t i = 0; i < wide.length; i += kLanes) {
      Floats columns[kLanes];
      for (int64_t c = 0; c < kLanes; ++c)
        columns[c] = i + c < wide.length ? entry<Number>(weight, begin + i + c, row) : zero();
      transpose(columns);
      for (int64_t r = row; r < height && r < row + kLanes; ++r)
        store(to + r * wide.stride + i, columns[r - row] * scale);
    }
}

template <typename Number>
static void widen_unit(const aph_codebook& weight, const Wide& wide) {
  for (int64_t o = 0; o < wide.outputs; o += weight.height) {
    const int64_t left = wide.outputs - o, height = left < weight.height ? left : weight.height;
    const int64_t vector = (wide.output + o) / weight.height;
    float* to = wide.to + o * wide.stride;
    if (weight.width == 1) widen_tall<Number>(weight, vector, height, wide, to);
    else widen_flat<Number>(weight, vector, height, wide, to);
  }
}

// The rectangles of at least kSide outputs, and inputs that stay in the first-level cache.
static Widening widening_of(const aph_codebook& weight) {
  const int64_t rectangles = (kSide + weight.height - 1) / weight.height;
  const int64_t unit = rectangles * weight.height, fitting = (1 << 13) / unit / weight.width;
  const int64_t run = (fitting ? fitting : 1) * weight.width;
  return {weight.across * weight.width, weight.outputs, unit, run};
}

}  // namespace aph::APH_LEVEL
