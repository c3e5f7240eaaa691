// y = x Wᵀ (+ bias) for a weight of narrow floats.
//
// For few rows codes are widened in registers; for more, a few outputs at a time in memory. Both
// multiply the same numbers in the same order.

#include "runtime.h"

#include "narrow.h"
#include "widened_product.h"

struct aph_narrow_matmul_args : aph_product {
  aph_narrow weight;
};

namespace aph::APH_LEVEL {

constexpr int64_t kAhead = 2;  // runs of outputs that are fetched before they are multiplied

// result [rows, outputs] += products of a run of inputs and the outputs of `row`.
template <int rows, int outputs, typename Row>
static void multiply_codes(const Row (&row)[outputs], const float* const (&scales)[outputs],
                           const Patch<float>& patch, int64_t group_size, int64_t first,
                           int64_t ahead) {
  Floats total[rows * outputs];
  for (Floats& one : total) one = zero();
  const auto add = [&](const Floats (&w)[outputs], int64_t i, auto lanes) {
    for (int r = 0; r < rows; ++r) {
      const Floats x = lanes.get(patch.x + r * patch.x_stride + i - first);
      for (int o = 0; o < outputs; ++o)
        total[r * outputs + o] = multiply_add(w[o], x, total[r * outputs + o]);
    }
  };
  for_groups(group_size, first, patch.length, [&](int64_t group, int64_t i, int64_t count) {
    Floats scale[outputs], w[outputs], more[outputs];
    for (int o = 0; o < outputs; ++o) scale[o] = scale_of<Row>(scales[o], group);
    int64_t j = i;
    for (const int64_t last = i + count; j + 2 * kLanes <= last; j += 2 * kLanes) {
      for (int o = 0; o < outputs; ++o) {
        __builtin_prefetch(row[o].at(j) + ahead, 0, 3);
        get_pair(row[o], j, w[o], more[o]);
        w[o] = w[o] * scale[o];
        more[o] = more[o] * scale[o];
      }
      add(w, j, Whole{});
      add(more, j + kLanes, Whole{});
    }
    for_lanes(i + count - j, [&](int64_t k, auto lanes) {
      for (int o = 0; o < outputs; ++o) w[o] = row[o].get(j + k, lanes) * scale[o];
      add(w, j + k, lanes);
    });
  });
  add_sums<rows, outputs>(total, patch.result, patch.result_stride);
}

// All inputs by outputs [output, output + outputs).
template <int rows, int outputs, typename RowOf>
static void multiply_few(const aph_narrow_matmul_args& args, const RowOf& row_of, int64_t begin,
                         int64_t output) {
  using Row = decltype(row_of(output));
  const aph_narrow& weight = args.weight;
  const auto multiply = [&](const Row (&row)[outputs], const float* const (&scales)[outputs]) {
    for (int64_t i = 0; i < weight.depth; i += kRun) {
      const int64_t left = weight.depth - i;
      const Patch<float> patch{args.x + begin * args.x_stride + i, nullptr,
                               args.result + begin * args.result_stride + output, args.x_stride, 0,
                               args.result_stride, left < kRun ? left : kRun};
      multiply_codes<rows>(row, scales, patch, weight.group, i, kAhead * outputs * weight.code_stride);
    }
  };
  if constexpr (outputs == 1) {
    multiply({row_of(output)}, {scales_of(weight, output)});
  } else if constexpr (outputs == 2) {
    multiply({row_of(output), row_of(output + 1)},
             {scales_of(weight, output), scales_of(weight, output + 1)});
  } else {
    multiply({row_of(output), row_of(output + 1), row_of(output + 2), row_of(output + 3)},
             {scales_of(weight, output), scales_of(weight, output + 1),
              scales_of(weight, output + 2), scales_of(weight, output + 3)});
  }
}

template <int rows>
static void multiply_few(const aph_narrow_matmul_args& args, int64_t begin, int64_t first,
                         int64_t last) {
  with_rows(args.weight, [&](auto row_of) {
    for (; last - first >= kSide; first += kSide)
      multiply_few<rows, kSide>(args, row_of, begin, first);
    for (; first < last; ++first) multiply_few<rows, 1>(args, row_of, begin, first);
  });
}

static void multiply_few(const aph_narrow_matmul_args& args, int64_t first, int64_t last) {
  begin_with_bias(args, 0, args.rows, first, last);
  if (args.rows == 1) return multiply_few<1>(args, 0, first, last);
  if (args.rows == 2) return multiply_few<2>(args, 0, first, last);
  if constexpr (kSide == 4) {
    if (args.rows == 3) return multiply_few<3>(args, 0, first, last);
    if (args.rows == 4) return multiply_few<4>(args, 0, first, last);
  }
}

int narrow_matmul(const aph_narrow_matmul_args& args) {
  const int64_t width = args.weight.width, group = args.weight.group;
  // Groups that begin within a vector of a run would be summed in other lanes.
  if (args.rows <= kSide && (group % kLanes == 0 || group >= args.weight.depth)) {
    const int64_t pieces = (width + kPiece - 1) / kPiece;
    parallel_for(args.runtime, pieces, 1, [&](int64_t begin, int64_t end, int) {
      multiply_few(args, begin * kPiece, end * kPiece < width ? end * kPiece : width);
    });
    return 0;
  }
  const Widening shape{args.weight.depth, width, kSide, kRun};
  multiply_widened(args, shape, [&](const Wide& wide) {
    for (int64_t o = 0; o < wide.outputs; ++o)
      widen_row(args.weight, wide.output + o, wide.first, wide.length, wide.to + o * wide.stride);
  });
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_narrow_matmul, aph_narrow_matmul_args, narrow_matmul)
