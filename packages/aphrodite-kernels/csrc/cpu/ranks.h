// Logits in order: as unsigned numbers, and sorted by their digits.
#pragma once

#include "floats.h"

namespace aph::APH_LEVEL {

// Unsigned and in the order of the floats; both zeros are one number. No branch on the sign, which
// no processor can guess.
APH_INLINE uint32_t rank_of(float value) {
  const uint32_t bits = bits_of(value + 0.0f);
  return bits ^ ((0u - (bits >> 31)) | 0x80000000u);
}
APH_INLINE float value_of(uint32_t rank) {
  return float_of(rank ^ (((rank >> 31) - 1u) | 0x80000000u));
}

constexpr int kDigitBits = 11, kDigits = 3, kDigitSize = 1 << kDigitBits;

// A token of a row, to be sorted; what is likelier comes first, and of equals the first.
struct Ranked {
  uint32_t below;  // ~rank_of(logit)
  uint32_t token;
};

APH_INLINE uint32_t key_of(uint32_t item) { return item; }
APH_INLINE uint32_t key_of(Ranked item) { return item.below; }

// Sorts by key_of(item), stable; `other` and `counts` [kDigits * kDigitSize] are room. Returns which
// of the two has the result.
template <typename Item>
APH_INLINE Item* sort_by_digits(Item* items, Item* other, int64_t count, uint32_t* counts) {
  std::memset(counts, 0, kDigits * kDigitSize * sizeof(uint32_t));
  for (int64_t i = 0; i < count; ++i)
    for (int digit = 0; digit < kDigits; ++digit)
      ++counts[digit * kDigitSize + (key_of(items[i]) >> digit * kDigitBits & (kDigitSize - 1))];
  for (int digit = 0; digit < kDigits; ++digit) {
    uint32_t* starts = counts + digit * kDigitSize;
    uint32_t before = 0, most = 0;
    for (int value = 0; value < kDigitSize; ++value) {
      const uint32_t own = starts[value];
      most = own > most ? own : most;
      starts[value] = before;
      before += own;
    }
    if (most == count) continue;  // all have this digit
    for (int64_t i = 0; i < count; ++i)
      other[starts[key_of(items[i]) >> digit * kDigitBits & (kDigitSize - 1)]++] = items[i];
    Item* const sorted = other;
    other = items;
    items = sorted;
  }
  return items;
}

}  // namespace aph::APH_LEVEL
