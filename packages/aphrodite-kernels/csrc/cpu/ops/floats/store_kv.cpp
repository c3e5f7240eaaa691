// Writes keys and values to their slots of the paged cache.

#include "runtime.h"

#include "cache_numbers.h"
#include "grain.h"

struct aph_store_kv_args {
  int64_t rows;
  aph_runtime* runtime;
  const float* k;        // [rows, heads, size]
  const float* v;        // [rows, heads, size]
  const int64_t* slots;  // [rows]
  void* key;             // [blocks, block_size, heads, size]
  void* value;           // the same
  int64_t blocks, block_size, heads, size;
  int64_t k_row_stride, k_head_stride, v_row_stride, v_head_stride;
  int64_t block_stride, slot_stride, head_stride;  // of key and of value
  float* key_scale;    // [blocks, block_size, heads] of a quantised cache
  float* value_scale;  // the same
  int64_t scale_block_stride, scale_slot_stride;
  float key_fixed, value_fixed;  // scale that every vector gets; 0: its own
  int32_t number;
};

namespace aph::APH_LEVEL {

// The scale by which the largest number of a vector becomes `limit`; below 0: the largest with its
// sign. 1 if all are zero; a NaN or an infinity makes it NaN.
static float scale_of(const float* from, int64_t size, float limit) {
  Floats high = zero(), low = zero(), wrong = zero();
  for_lanes(size, [&](int64_t i, auto lanes) {
    const Floats x = lanes.get(from + i);
    high = largest(x, high);
    low = largest(zero() - x, low);
    wrong = wrong + x * zero();
  });
  const float top = largest(high), bottom = largest(low);
  const float peak = top >= bottom ? top : limit < 0 ? -bottom : bottom;
  const float scale = peak / limit + sum(wrong);
  return scale == 0 ? 1.0f : scale;
}

template <typename Stored>
static void store_head(const float* from, Stored* to, int64_t size, float fixed, float* scale) {
  if constexpr (kLimit<Stored> == 0) {
    for_lanes(size, [&](int64_t i, auto lanes) { lanes.put(to + i, lanes.get(from + i)); });
  } else {
    *scale = fixed ? fixed : scale_of(from, size, kLimit<Stored>);
    constexpr float limit = kLimit<Stored> < 0 ? -kLimit<Stored> : kLimit<Stored>;
    constexpr float top = kLimit<Stored> < 0 ? limit - 1 : limit;
    const Floats by = all_floats(*scale);
    for_lanes(size, [&](int64_t i, auto lanes) {
      const Floats steps = lanes.get(from + i) / by;  // a NaN stays one
      lanes.put(element(to, i), largest(all_floats(-limit), smallest(all_floats(top), steps)));
    });
  }
}

template <typename Stored>
static int store_rows(const aph_store_kv_args& args) {
  const int64_t grain = grain_of(2 * args.heads * args.size);
  parallel_for(args.runtime, args.rows, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t slot = args.slots[row];
      const int64_t at = slot / args.block_size * args.block_stride +
                         slot % args.block_size * args.slot_stride;
      const int64_t scales = slot / args.block_size * args.scale_block_stride +
                             slot % args.block_size * args.scale_slot_stride;
      for (int64_t head = 0; head < args.heads; ++head) {
        const int64_t to = at + head * args.head_stride;
        store_head(args.k + row * args.k_row_stride + head * args.k_head_stride,
                   static_cast<Stored*>(args.key) + to, args.size, args.key_fixed,
                   args.key_scale + scales + head);
        store_head(args.v + row * args.v_row_stride + head * args.v_head_stride,
                   static_cast<Stored*>(args.value) + to, args.size, args.value_fixed,
                   args.value_scale + scales + head);
      }
    }
  });
  return 0;
}

int store_kv(const aph_store_kv_args& args) {
  const int64_t slots = args.blocks * args.block_size;
  for (int64_t row = 0; row < args.rows; ++row)
    if (args.slots[row] < 0 || args.slots[row] >= slots)
      return fail("row %lld goes to slot %lld, but the cache has %lld slots",
                  static_cast<long long>(row), static_cast<long long>(args.slots[row]),
                  static_cast<long long>(slots));
  return with_cache_number(args.number,
                           [&](auto stored) { return store_rows<decltype(stored)>(args); });
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_store_kv, aph_store_kv_args, store_kv)
