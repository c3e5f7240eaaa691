// y = x Wᵀ (+ bias) for a trellis-coded weight, read as it lies in its file.
//
// W = diag(svh) H D H diag(suh), so x is scaled and transformed first, and the product with D after.
// A vector of decoded numbers belongs to eight inputs and two outputs: x lies as it is multiplied,
// and the lanes are added up at the end. Any number of rows is added up in the same order.

#include "runtime.h"

#include "hadamard.h"
#include "product.h"
#include "trellis_numbers.h"

struct aph_trellis_matmul_args : aph_product {
  const uint8_t* trellis;  // [depth / 16, width / 16, 16 pair_bits]
  const uint16_t* suh;     // [depth] float16
  const uint16_t* svh;     // [width] float16
  int64_t depth, width;      // multiples of 128
  int64_t columns, outputs;  // those that are not padding
  int32_t pair_bits, codebook;
};

namespace aph::APH_LEVEL {

constexpr int kSide = 16;           // of a tile
constexpr int kTransform = 128;     // channels that are mixed
constexpr int kNumbers = 256;       // in a tile
constexpr int kPanel = 8;           // tiles along K that are decoded at a time: one transform
constexpr int kInputs = 256;        // numbers of a row in a panel, as they are multiplied
constexpr int kColumns = 4;         // of tiles, that share what of x is in the cache
constexpr int64_t kRowBlock = 64;   // rows that share what is decoded
constexpr int64_t kChunk = 512;     // rows in memory
constexpr int kSums = kNumbers / 2;  // eight vectors, of two outputs each

// The input that lane `lane` of an even vector of a tile is for; of an odd vector: 4 more.
static constexpr int input_of(int lane) { return lane % 2 + lane % 4 / 2 * 8 + lane / 8 * 2; }

struct Work {
  float* x;  // [depth / 128, rows, 8, 2, 16], as it is multiplied
  float* y;  // [rows, width]
};

static Floats scales(const uint16_t* halves) { return load(reinterpret_cast<const Half*>(halves)); }

// A row, scaled and transformed; its panels are `stride` apiece.
static void prepare_row(const aph_trellis_matmul_args& args, const float* x, int64_t stride,
                        float* panel) {
  alignas(64) float block[kTransform];
  for (int64_t first = 0; first < args.depth; first += kTransform, panel += stride) {
    const int64_t left = args.columns - first;
    float* to = panel;
    for (int64_t i = left < kTransform ? left : kTransform; i < kTransform; ++i) block[i] = 0.0f;
    for_lanes(left < kTransform ? left : kTransform,
              [&](int64_t i, auto lanes) { lanes.put(block + i, lanes.get(x + first + i)); });
    for (int i = 0; i < kTransform; i += kLanes)
      store(block + i, load(block + i) * scales(args.suh + first + i));
    transform(block, kTransform, kTransform);
    for (int tile = 0; tile < kTransform; tile += kSide, to += 2 * kLanes)
      for (int lane = 0; lane < kLanes; ++lane) {
        to[lane] = block[tile + input_of(lane)];
        to[kLanes + lane] = block[tile + input_of(lane) + 4];
      }
  }
}

static void finish_row(const aph_trellis_matmul_args& args, float* y, float* to) {
  for (int64_t first = 0; first < args.outputs; first += kTransform) {
    float* block = y + first;
    transform(block, kTransform, kTransform);
    const int64_t left = args.outputs - first;
    for (int i = 0; i < kTransform; i += kLanes)
      store(block + i, load(block + i) * scales(args.svh + first + i));
    for_lanes(left < kTransform ? left : kTransform, [&](int64_t i, auto lanes) {
      const Floats bias = args.bias ? lanes.get(args.bias + first + i) : zero();
      lanes.put(to + first + i, lanes.get(block + i) + bias);
    });
  }
}

// sums [rows, 128] += a panel's decoded tiles times x.
template <int rows>
static void multiply(const float* decoded, const float* x, float* sums) {
  Floats total[rows][8];
  for (int r = 0; r < rows; ++r)
    for (int v = 0; v < 8; ++v) total[r][v] = load(sums + r * kSums + v * kLanes);
  for (int tile = 0; tile < kPanel; ++tile, decoded += kNumbers, x += 2 * kLanes)
    for (int odd = 0; odd < 2; ++odd) {
      Floats inputs[rows];
      for (int r = 0; r < rows; ++r) inputs[r] = load(x + r * kInputs + odd * kLanes);
      for (int v = 0; v < 8; ++v) {
        const Floats number = load(decoded + (2 * v + odd) * kLanes);
        for (int r = 0; r < rows; ++r) total[r][v] = multiply_add(number, inputs[r], total[r][v]);
      }
    }
  for (int r = 0; r < rows; ++r)
    for (int v = 0; v < 8; ++v) store(sums + r * kSums + v * kLanes, total[r][v]);
}

template <int pair_bits, Codebook book>
static void decode_panel(const uint8_t* tile, int64_t step, int64_t ahead, float* decoded) {
  uint16_t ring[kRingHalves] = {};
  for (int t = 0; t < kPanel; ++t, tile += step) {
    for (int line = 0; line < 16 * pair_bits; line += 64) __builtin_prefetch(tile + ahead + line);
    unroll_ring<pair_bits>(tile, ring);
    float* to = decoded + t * kNumbers;
    for (int v = 0; v < 16; v += 2, to += 2 * kLanes) {
      store(to, numbers_from<pair_bits, book, false>(ring, v));
      store(to + kLanes, numbers_from<pair_bits, book, true>(ring, v + 1));
    }
  }
}

// Sixteen outputs of a row, from the lanes in which they are added up.
static void add_lanes(const float* lanes, float* y) {
  for (int v = 0; v < 8; ++v, lanes += kLanes, ++y) {
    y[0] = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
           ((lanes[8] + lanes[9]) + (lanes[10] + lanes[11]));
    y[8] = ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7])) +
           ((lanes[12] + lanes[13]) + (lanes[14] + lanes[15]));
  }
}

// Rows by columns of tiles.
struct Piece {
  const float* x;  // of the first row; a panel is `stride` behind the one before
  float* y;
  int64_t stride;
  int64_t rows, column, columns;
};

template <int pair_bits, Codebook book>
static void multiply_piece(const aph_trellis_matmul_args& args, const Piece& piece, float* sums) {
  const int64_t panels = args.depth / kTransform, step = args.width / kSide * 16 * pair_bits;
  alignas(64) float decoded[kPanel * kNumbers];
  for (int64_t i = 0; i < piece.columns * piece.rows * kSums; ++i) sums[i] = 0.0f;
  for (int64_t panel = 0; panel < panels; ++panel)
    for (int64_t c = 0; c < piece.columns; ++c) {
      const int64_t tile = panel * kPanel * step + (piece.column + c) * 16 * pair_bits;
      const int64_t ahead = panel + 1 < panels ? kPanel * step : 0;
      decode_panel<pair_bits, book>(args.trellis + tile, step, ahead, decoded);
      const float* x = piece.x + panel * piece.stride;
      float* sum = sums + c * piece.rows * kSums;
      int64_t row = 0;
      for (; row + 2 <= piece.rows; row += 2)
        multiply<2>(decoded, x + row * kInputs, sum + row * kSums);
      if (row < piece.rows) multiply<1>(decoded, x + row * kInputs, sum + row * kSums);
    }
  for (int64_t c = 0; c < piece.columns; ++c)
    for (int64_t row = 0; row < piece.rows; ++row)
      add_lanes(sums + (c * piece.rows + row) * kSums,
                piece.y + row * args.width + (piece.column + c) * kSide);
}

using Multiply = void (*)(const aph_trellis_matmul_args& args, const Piece& piece, float* sums);

// Null: no trellis has so many bits.
template <Codebook book>
static Multiply multiply_of(int32_t pair_bits) {
  static constexpr Multiply pieces[] = {multiply_piece<2, book>,  multiply_piece<4, book>,
                                       multiply_piece<6, book>,  multiply_piece<8, book>,
                                       multiply_piece<10, book>, multiply_piece<12, book>,
                                       multiply_piece<14, book>, multiply_piece<16, book>};
  if (pair_bits < 2 || pair_bits > 16) return nullptr;
  if (pair_bits % 2 == 0) return pieces[pair_bits / 2 - 1];
  if constexpr (book == Codebook::kMul1) {
    if (pair_bits == 3) return multiply_piece<3, book>;
    if (pair_bits == 5) return multiply_piece<5, book>;
    if (pair_bits == 7) return multiply_piece<7, book>;
  }
  return nullptr;
}

static void multiply_chunk(const aph_trellis_matmul_args& args, int64_t start, int64_t rows,
                           Multiply multiply_one, const Work& work) {
  parallel_for(args.runtime, rows, 4, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row)
      prepare_row(args, args.x + (start + row) * args.x_stride, rows * kInputs,
                  work.x + row * kInputs);
  });
  const int64_t columns = args.width / kSide, blocks = (rows + kRowBlock - 1) / kRowBlock;
  const int64_t wide = rows > 2 ? kColumns : 1, groups = columns / wide;
  parallel_for(args.runtime, blocks * groups, 1, [&](int64_t begin, int64_t end, int worker) {
    void* sums = scratch(args.runtime, worker, kColumns * kRowBlock * kSums * sizeof(float));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / groups * kRowBlock, left = rows - row;
      const Piece piece{work.x + row * kInputs, work.y + row * args.width, rows * kInputs,
                      left < kRowBlock ? left : kRowBlock, i % groups * wide, wide};
      multiply_one(args, piece, static_cast<float*>(sums));
    }
  });
  parallel_for(args.runtime, rows, 4, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row)
      finish_row(args, work.y + row * args.width, args.result + (start + row) * args.result_stride);
  });
}

int trellis_matmul(const aph_trellis_matmul_args& args) {
  const auto book = static_cast<Codebook>(args.codebook);
  const Multiply multiply = book == Codebook::kInst3 ? multiply_of<Codebook::kInst3>(args.pair_bits)
                            : book == Codebook::kMcg ? multiply_of<Codebook::kMcg>(args.pair_bits)
                                                     : multiply_of<Codebook::kMul1>(args.pair_bits);
  if (!multiply) return fail("no trellis has %d bits for two weights", args.pair_bits);
  const int64_t most = args.rows < kChunk ? args.rows : kChunk;
  const size_t bytes = most * (2 * args.depth + args.width) * sizeof(float);
  float* memory = static_cast<float*>(scratch(args.runtime, -1, bytes));
  const Work work{memory, memory + most * 2 * args.depth};
  for (int64_t start = 0; start < args.rows; start += kChunk) {
    const int64_t left = args.rows - start;
    multiply_chunk(args, start, left < kChunk ? left : kChunk, multiply, work);
  }
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_trellis_matmul, aph_trellis_matmul_args, trellis_matmul)
