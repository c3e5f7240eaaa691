// Counter-based random numbers, Philox4x32-10: Salmon, Moraes, Dror, Shaw: Parallel random numbers:
// as easy as 1, 2, 3 (SC 2011).

#include "runtime.h"

struct aph_uniform_args {
  int64_t rows;
  aph_runtime* runtime;
  const int64_t* seeds;      // [rows]
  const int32_t* choices;    // [rows]
  const int32_t* positions;  // [rows]
  float* result;             // [rows], in [0, 1)
  uint32_t purpose;
};

namespace aph::APH_LEVEL {

// First word of the block that the key makes of the counter.
static uint32_t philox(uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint64_t key) {
  uint32_t low = static_cast<uint32_t>(key), high = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t first = uint64_t{0xD2511F53u} * a, second = uint64_t{0xCD9E8D57u} * c;
    a = static_cast<uint32_t>(second >> 32) ^ b ^ low;
    b = static_cast<uint32_t>(second);
    c = static_cast<uint32_t>(first >> 32) ^ d ^ high;
    d = static_cast<uint32_t>(first);
    low += 0x9E3779B9u;
    high += 0xBB67AE85u;
  }
  return a;
}

int uniform(const aph_uniform_args& args) {
  for (int64_t row = 0; row < args.rows; ++row) {
    const uint32_t word = philox(static_cast<uint32_t>(args.positions[row]),
                                 static_cast<uint32_t>(args.choices[row]), args.purpose, 0,
                                 static_cast<uint64_t>(args.seeds[row]));
    args.result[row] = static_cast<float>(word >> 8) * 0x1p-24f;
  }
  return 0;
}

}  // namespace aph::APH_LEVEL

APH_FLOAT_OP(aph_uniform, aph_uniform_args, uniform)
