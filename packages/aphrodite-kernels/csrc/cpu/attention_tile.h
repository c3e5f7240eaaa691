// The arithmetic of attention for a tile of rows over one chunk of keys.
//
// A row is a (query, head) pair; rows of a tile share a KV head. Keys come in chunks of kChunk at
// absolute positions. A chunk gives a row a partial: the largest score, the sum of the weights
// relative to it, and the weighted sum of the values. Partials are merged in order of position.
// Every number of a row's partial is one fixed sequence of operations on the query and the keys it
// sees, whatever rows share the tile and whichever thread computes it: the products run over the
// dimensions in order, the values over the keys in order, and keys that a row does not see weigh 0.
#pragma once

#include "cache_numbers.h"

namespace aph::APH_LEVEL {

constexpr int kChunk = 64;
constexpr int kVectors = kChunk / kLanes;
constexpr float kNothing = -__builtin_inff();

// A register tile: rows times vectors of accumulators.
constexpr int kTileRows = 4;
#if defined(__AVX512BW__)
constexpr int kTileVectors = 4;
#else
constexpr int kTileVectors = 1;
#endif

// Keys [first, last) of a chunk, counted from its start.
struct Span {
  int first, last;
};

// Memory for one chunk of one tile. Rows are `padded` long, a multiple of kLanes.
struct TileMemory {
  float* q;        // [rows, padded], times the scale
  float* keys;     // [padded, kChunk]
  float* weights;  // [rows, kChunk]: scores, then weights
  Span* spans;     // [rows]: keys of this chunk that the row sees
  float* key_scales;    // [kChunk] of a quantised cache
  float* value_scales;  // the same
};

// A row's partial, or what several merge to.
struct Partial {
  float* largest;  // [rows]
  float* sum;      // [rows]
  float* values;   // [rows, padded]
};

// keys[d][j] = element d of key j, for the groups of lanes that touch the span; 0 for other keys.
template <typename Stored>
static void pack_keys(const Stored* cache, const int64_t* offsets, Span span, int64_t size,
                      float* keys) {
  for (int group = span.first / kLanes * kLanes; group < span.last; group += kLanes) {
    const bool whole = group >= span.first && group + kLanes <= span.last;
    for_lanes(size, [&](int64_t d, auto lanes) {
      Floats rows[kLanes];
      for (int j = 0; j < kLanes; ++j) {
        const int key = group + j;
        const bool seen = whole || (key >= span.first && key < span.last);
        rows[j] = seen ? lanes.get(element(cache + offsets[key], d)) : zero();
      }
      transpose(rows);
      for (int j = 0; j < kLanes; ++j) store(keys + (d + j) * kChunk + group, rows[j]);
    });
  }
}

// weights[row][j] = q[row] · key j for `rows` rows.
template <int rows>
static void score_rows(const float* q, const float* keys, float* weights, int64_t padded) {
  for (int vector = 0; vector < kVectors; vector += kTileVectors) {
    Floats sums[rows][kTileVectors];
    for (auto& row : sums)
      for (Floats& sum : row) sum = zero();
    const float* key = keys + vector * kLanes;
    for (int64_t d = 0; d < padded; ++d, key += kChunk)
      for (int v = 0; v < kTileVectors; ++v) {
        const Floats element = load(key + v * kLanes);
        for (int row = 0; row < rows; ++row)
          sums[row][v] = multiply_add(all_floats(q[row * padded + d]), element, sums[row][v]);
      }
    for (int row = 0; row < rows; ++row)
      for (int v = 0; v < kTileVectors; ++v)
        store(weights + row * kChunk + (vector + v) * kLanes, sums[row][v]);
  }
}

// cap * tanh(score / cap)
APH_INLINE Floats soften(Floats score, float cap) {
  const Floats twice = exponential(score * all_floats(2.0f / cap));
  const Floats one = all_floats(1.0f);
  return all_floats(cap) * (one - all_floats(2.0f) / (twice + one));
}

// Scores of one row to weights relative to the largest; of a quantised cache, the weights of the
// stored values.
template <typename Stored>
static void weigh_row(float* weights, Span span, float softcap, const TileMemory& memory,
                      float* largest_score, float* sum_) {
  Floats scores[kVectors];
  Floats peak = all_floats(kNothing);
  for (int v = 0; v < kVectors; ++v) {
    Floats score = load(weights + v * kLanes);
    if constexpr (kLimit<Stored> != 0) score = score * load(memory.key_scales + v * kLanes);
    if (softcap > 0) score = soften(score, softcap);
    const int first = span.first - v * kLanes, last = span.last - v * kLanes;
    scores[v] = within(score, first < 0 ? 0 : first > kLanes ? kLanes : first,
                       last < 0 ? 0 : last > kLanes ? kLanes : last, kNothing);
    peak = largest(peak, scores[v]);
  }
  const float top = largest(peak);
  Floats total = zero();
  for (int v = 0; v < kVectors; ++v) {
    const Floats weight = exponential(scores[v] - all_floats(top));
    total = total + weight;
    if constexpr (kLimit<Stored> != 0)
      store(weights + v * kLanes, weight * load(memory.value_scales + v * kLanes));
    else
      store(weights + v * kLanes, weight);
  }
  *largest_score = top;
  *sum_ = sum(total);
}

// values[row][d …] = the sum over the span of weights[row][j] * value j.
template <int rows, int vectors, typename Stored, typename Lanes>
static void sum_values(const Stored* cache, const int64_t* offsets, Span span, const float* weights,
                       float* values, int64_t padded, Lanes lanes) {
  Floats sums[rows][vectors];
  for (auto& row : sums)
    for (Floats& sum : row) sum = zero();
  for (int j = span.first; j < span.last; ++j) {
    const Stored* value = cache + offsets[j];
    for (int v = 0; v < vectors; ++v) {
      const Floats number = lanes.get(element(value, v * kLanes));
      for (int row = 0; row < rows; ++row)
        sums[row][v] = multiply_add(all_floats(weights[row * kChunk + j]), number, sums[row][v]);
    }
  }
  for (int row = 0; row < rows; ++row)
    for (int v = 0; v < vectors; ++v) store(values + row * padded + v * kLanes, sums[row][v]);
}

template <int rows, typename Stored>
static void sum_all_values(const Stored* cache, const int64_t* offsets, Span span,
                           const float* weights, float* values, int64_t size, int64_t padded) {
  int64_t d = 0;
  for (; d + kTileVectors * kLanes <= size; d += kTileVectors * kLanes)
    sum_values<rows, kTileVectors>(element(cache, d), offsets, span, weights, values + d, padded,
                                   Whole{});
  for (; d + kLanes <= size; d += kLanes)
    sum_values<rows, 1>(element(cache, d), offsets, span, weights, values + d, padded, Whole{});
  if (d < size)
    sum_values<rows, 1>(element(cache, d), offsets, span, weights, values + d, padded,
                        Part{size - d});
}

// The keys that any of the rows sees.
static Span hull(const Span* spans, int rows) {
  Span all{kChunk, 0};
  for (int row = 0; row < rows; ++row) {
    if (spans[row].first >= spans[row].last) continue;
    if (spans[row].first < all.first) all.first = spans[row].first;
    if (spans[row].last > all.last) all.last = spans[row].last;
  }
  return all;
}

struct Chunk {
  const int64_t* offsets;  // [kChunk]: where each key and value begins in the cache
  int64_t size, padded;
  float softcap;  // 0: none
};

// Partials of `rows` rows whose first is `row`; keys are packed already.
template <int rows, typename Stored>
static void attend_rows(const Chunk& chunk, const Stored* values, const TileMemory& memory,
                        const Partial& partial, int row) {
  float* weights = memory.weights + row * kChunk;
  score_rows<rows>(memory.q + row * chunk.padded, memory.keys, weights, chunk.padded);
  for (int i = 0; i < rows; ++i)
    weigh_row<Stored>(weights + i * kChunk, memory.spans[row + i], chunk.softcap, memory,
                      partial.largest + row + i, partial.sum + row + i);
  sum_all_values<rows>(values, chunk.offsets, hull(memory.spans + row, rows), weights,
                       partial.values + row * chunk.padded, chunk.size, chunk.padded);
}

// Partials of all rows for one chunk. A row that sees none of its keys gets largest = kNothing.
template <typename Stored>
static void attend_chunk(const Chunk& chunk, const Stored* keys, const Stored* values, int rows,
                         const TileMemory& memory, const Partial& partial) {
  pack_keys(keys, chunk.offsets, hull(memory.spans, rows), chunk.size, memory.keys);
  int row = 0;
  for (; row + kTileRows <= rows; row += kTileRows)
    attend_rows<kTileRows>(chunk, values, memory, partial, row);
  switch (rows - row) {
    case 3: return attend_rows<3>(chunk, values, memory, partial, row);
    case 2: return attend_rows<2>(chunk, values, memory, partial, row);
    case 1: return attend_rows<1>(chunk, values, memory, partial, row);
  }
}

// e^x for one number, with the arithmetic of exponential().
APH_INLINE float exponential_of(float x) {
  float lanes[kLanes];
  store(lanes, exponential(all_floats(x)));
  return lanes[0];
}

// Adds a score without a value to a row.
static void sink(float score, const Partial& merged, int64_t row, int64_t padded) {
  const float top = score > merged.largest[row] ? score : merged.largest[row];
  const float keep = exponential_of(merged.largest[row] - top);
  merged.sum[row] = merged.sum[row] * keep + exponential_of(score - top);
  float* values = merged.values + row * padded;
  for (int64_t d = 0; d < padded; d += kLanes)
    store(values + d, load(values + d) * all_floats(keep));
}

// Adds a partial to what was merged before it.
static void merge(const Partial& merged, const Partial& partial, int rows, int64_t padded) {
  for (int row = 0; row < rows; ++row) {
    const float old_top = merged.largest[row], new_top = partial.largest[row];
    if (new_top == kNothing) continue;
    const float top = old_top > new_top ? old_top : new_top;
    const float keep = old_top == kNothing ? 0.0f : exponential_of(old_top - top);
    const float add = exponential_of(new_top - top);
    merged.largest[row] = top;
    merged.sum[row] = merged.sum[row] * keep + partial.sum[row] * add;
    float* to = merged.values + row * padded;
    const float* from = partial.values + row * padded;
    for (int64_t d = 0; d < padded; d += kLanes)
      store(to + d, multiply_add(load(from + d), all_floats(add), load(to + d) * all_floats(keep)));
  }
}

static void clear(const Partial& merged, int rows, int64_t padded) {
  for (int row = 0; row < rows; ++row) {
    merged.largest[row] = kNothing;
    merged.sum[row] = 0.0f;
    for (int64_t d = 0; d < padded; d += kLanes) store(merged.values + row * padded + d, zero());
  }
}

}  // namespace aph::APH_LEVEL
