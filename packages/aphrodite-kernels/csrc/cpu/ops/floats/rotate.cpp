// Rotary position embedding, in place, of queries and keys; and what mixes them for the cache.

#include "runtime.h"

#include "floats.h"
#include "grain.h"
#include "hadamard.h"

struct aph_rotate_args {
  int64_t rows;
  aph_runtime* runtime;
  float* q;                  // [rows, q_heads, size]
  float* k;                  // [rows, k_heads, size]
  const int32_t* positions;  // [rows]
  const float* table;        // [table_rows, 2, half]: cosines, sines
  int64_t table_rows, half;
  int64_t size, mixed;  // of a head; neighbours that are mixed, 1: none
  int64_t q_heads, q_row_stride, q_head_stride;
  int64_t k_heads, k_row_stride, k_head_stride;
};

namespace aph::APH_LEVEL {

static void turn(float* head, const float* cosines, const float* sines, int64_t half) {
  for_lanes(half, [&](int64_t i, auto lanes) {
    const Floats first = lanes.get(head + i), second = lanes.get(head + half + i);
    const Floats cosine = lanes.get(cosines + i), sine = lanes.get(sines + i);
    lanes.put(head + i, multiply_add(first, cosine, zero() - second * sine));
    lanes.put(head + half + i, multiply_add(second, cosine, first * sine));
  });
}

int rotate(const aph_rotate_args& args) {
  for (int64_t row = 0; row < args.rows; ++row)
    if (args.positions[row] < 0 || args.positions[row] >= args.table_rows)
      return fail("row %lld is at position %d, but the table has %lld positions",
                  static_cast<long long>(row), args.positions[row],
                  static_cast<long long>(args.table_rows));
  const int64_t grain = grain_of((args.q_heads + args.k_heads) * args.half * 2);
  parallel_for(args.runtime, args.rows, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float* cosines = args.table + args.positions[row] * 2 * args.half;
      const float* sines = cosines + args.half;
      const auto each = [&](float* head) {
        turn(head, cosines, sines, args.half);
        if (args.mixed > 1) transform(head, args.size, args.mixed);
      };
      for (int64_t head = 0; head < args.q_heads; ++head)
        each(args.q + row * args.q_row_stride + head * args.q_head_stride);
      for (int64_t head = 0; head < args.k_heads; ++head)
        each(args.k + row * args.k_row_stride + head * args.k_head_stride);
    }
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_rotate, aph_rotate_args, rotate)
