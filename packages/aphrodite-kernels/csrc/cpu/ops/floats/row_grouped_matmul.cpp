// y = x Wᵀ (+ bias) for codes whose scales and zero points are shared by rows that lie apart.

#include "runtime.h"

#include "bit_codes.h"
#include "numbers.h"
#include "widened_product.h"

struct aph_row_grouped_matmul_args : aph_product {
  const uint8_t* codes;  // [width, depth * bits / 8]
  const void* scale;     // [groups, depth]
  const void* zero;      // [groups, depth]
  const int64_t* group;  // [width], of each output
  int64_t depth, width;
  int32_t bits, number;
};

namespace aph::APH_LEVEL {

// w = (code - zero) * scale, of one output; `first` is a multiple of sixteen.
template <typename Number>
static void widen_grouped(const aph_row_grouped_matmul_args& args, int64_t output, int64_t first,
                          int64_t length, float* to) {
  const int64_t bytes = args.depth * args.bits / 8, at = args.group[output] * args.depth;
  const Number* scale = static_cast<const Number*>(args.scale) + at;
  const Number* zero = static_cast<const Number*>(args.zero) + at;
  const uint8_t* codes = args.codes + output * bytes;
  for_lanes(length, [&](int64_t i, auto lanes) {
    const int64_t column = first + i, byte = column * args.bits / 8;
    const uint8_t* from = codes + byte;
    uint8_t padded[kLanes] = {};
    if (byte + kLanes > bytes) {
      std::memcpy(padded, from, bytes - byte);
      from = padded;
    }
    const Floats code = codes_of(from, args.bits);
    lanes.put(to + i, (code - lanes.get(zero + column)) * lanes.get(scale + column));
  });
}

int row_grouped_matmul(const aph_row_grouped_matmul_args& args) {
  if (args.bits < 1 || args.bits > 8) return fail("codes have 1 to 8 bits, not %d", args.bits);
  return with_number(args.number, [&](auto number) {
    multiply_widened(args, {args.depth, args.width, kSide, kRun}, [&](const Wide& wide) {
      for (int64_t o = 0; o < wide.outputs; ++o)
        widen_grouped<decltype(number)>(args, wide.output + o, wide.first, wide.length,
                                        wide.to + o * wide.stride);
    });
    return 0;
  });
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_row_grouped_matmul, aph_row_grouped_matmul_args, row_grouped_matmul)
