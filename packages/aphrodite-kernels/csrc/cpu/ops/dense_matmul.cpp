// y = x Wᵀ (+ bias) for an unquantised weight, row-major as it lies in its file.
//
// Weights are widened to float32 in registers.

#include "runtime.h"

#include "dense_product.h"
#include "numbers.h"

struct aph_dense_matmul_args : aph_product {
  const void* weight;  // [width, depth]
  int64_t weight_stride;
  int64_t depth, width;
  int32_t number;
};

namespace aph::APH_LEVEL {

// Rows [begin, end) by outputs [first, last).
template <typename Stored>
static void multiply_piece(const aph_dense_matmul_args& args, int64_t begin, int64_t end,
                           int64_t first, int64_t last) {
  begin_with_bias(args, begin, end, first, last);
  for (int64_t i = 0; i < args.depth; i += kRun) {
    const int64_t length = args.depth - i < kRun ? args.depth - i : kRun;
    for (int64_t o = first; o < last;) {
      const Stored* weight = static_cast<const Stored*>(args.weight) + o * args.weight_stride + i;
      const Patch<Stored> patch{args.x + begin * args.x_stride + i, weight,
                                args.result + begin * args.result_stride + o, args.x_stride,
                                args.weight_stride, args.result_stride, length};
      const bool whole = last - o >= kSide;
      if (whole) multiply_rows<kSide>(patch, end - begin);
      else multiply_rows<1>(patch, end - begin);
      o += whole ? kSide : 1;
    }
  }
}

int dense_matmul(const aph_dense_matmul_args& args) {
  return with_number(args.number, [&](auto stored) {
    for_pieces(args, args.width, kPiece,
               [&](int64_t begin, int64_t end, int64_t first, int64_t last, int) {
                 multiply_piece<decltype(stored)>(args, begin, end, first, last);
               });
    return 0;
  });
}

}  // namespace aph::APH_LEVEL

APH_OP(aph_dense_matmul, aph_dense_matmul_args, dense_matmul)
