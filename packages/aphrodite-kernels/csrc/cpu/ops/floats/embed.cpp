// Rows of a dense embedding, times a factor.

#include "runtime.h"

#include "grain.h"
#include "numbers.h"

struct aph_embed_args {
  int64_t rows;
  aph_runtime* runtime;
  const int32_t* tokens;  // [rows]
  const void* weight;     // [vocabulary, width]
  float* result;          // [rows, width], contiguous
  int64_t vocabulary, width, weight_stride;
  float scale;
  int32_t number;
};

namespace aph::APH_LEVEL {

template <typename Stored>
static int embed_rows(const aph_embed_args& args) {
  const Floats scale = all_floats(args.scale);
  parallel_for(args.runtime, args.rows, grain_of(args.width), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const Stored* from = static_cast<const Stored*>(args.weight) +
                           args.tokens[row] * args.weight_stride;
      float* to = args.result + row * args.width;
      for_lanes(args.width,
                [&](int64_t i, auto lanes) { lanes.put(to + i, lanes.get(from + i) * scale); });
    }
  });
  return 0;
}

int embed(const aph_embed_args& args) {
  for (int64_t row = 0; row < args.rows; ++row)
    if (args.tokens[row] < 0 || args.tokens[row] >= args.vocabulary)
      return fail("token %d is not in the vocabulary of %lld", args.tokens[row],
                  static_cast<long long>(args.vocabulary));
  return with_number(args.number,
                     [&](auto stored) { return embed_rows<decltype(stored)>(args); });
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_embed, aph_embed_args, embed)
