// y = x Wᵀ (+ bias) for sums of codebook entries, a few outputs widened at a time.

#include "runtime.h"

#include "codebook.h"

struct aph_codebook_matmul_args : aph_product {
  aph_codebook weight;
};

namespace aph::APH_LEVEL {

int codebook_matmul(const aph_codebook_matmul_args& args) {
  return with_number(args.weight.number, [&](auto number) {
    multiply_widened(args, widening_of(args.weight), [&](const Wide& wide) {
      widen_unit<decltype(number)>(args.weight, wide);
    });
    return 0;
  });
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_codebook_matmul, aph_codebook_matmul_args, codebook_matmul)
