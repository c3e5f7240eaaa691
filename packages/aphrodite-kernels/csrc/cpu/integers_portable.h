// integers.h in the vector extension of GCC and clang: any little-endian processor.
#pragma once

namespace aph::APH_LEVEL {

struct Bytes { uint8_t v __attribute__((vector_size(64))); };
struct Ints { int32_t v __attribute__((vector_size(64))); };

constexpr int kMaxRows = 2;  // rows multiplied at a time

template <class To, class From>
APH_INLINE To load_from(const From* p) {
  To a;
  std::memcpy(&a.v, p, sizeof a.v);
  return a;
}

APH_INLINE Bytes load_bytes(const uint8_t* p) { return load_from<Bytes>(p); }
APH_INLINE void store_bytes(uint8_t* p, Bytes a) { std::memcpy(p, &a.v, sizeof a.v); }
APH_INLINE Bytes all_bytes(uint8_t value) { return {value - decltype(Bytes::v){}}; }
APH_INLINE Bytes operator&(Bytes a, Bytes b) { return {a.v & b.v}; }
APH_INLINE Bytes operator|(Bytes a, Bytes b) { return {a.v | b.v}; }
template <int by>
APH_INLINE Bytes shift_right(Bytes a) {
  if constexpr (by >= 0) return {a.v >> by};
  else return {a.v << -by};
}
APH_INLINE Bytes look_up(const uint8_t* table, Bytes a) {
  for (int i = 0; i < 64; ++i) a.v[i] = table[a.v[i]];
  return a;
}

APH_INLINE Ints all_ints(int32_t value) { return {value - decltype(Ints::v){}}; }
APH_INLINE Ints shift_left(Ints a, int by) { return {a.v << by}; }
template <int by>
APH_INLINE Ints shift_right(Ints a) { return {a.v >> by}; }
APH_INLINE Ints operator&(Ints a, Ints b) { return {a.v & b.v}; }

APH_INLINE Floats to_floats(Ints a) {
  return each([&](int i) { return static_cast<float>(a.v[i]); });
}
APH_INLINE Ints load_unsigned(const uint8_t* p) {
  Ints a;
  for (int i = 0; i < 16; ++i) a.v[i] = p[i];
  return a;
}
APH_INLINE Ints load_signed(const uint8_t* p) {
  Ints a;
  for (int i = 0; i < 16; ++i) a.v[i] = static_cast<int8_t>(p[i]);
  return a;
}
APH_INLINE Ints bits_of(Floats a) { return load_from<Ints>(&a.v); }
APH_INLINE Ints largest(Ints a, Ints b) { return {a.v > b.v ? a.v : b.v}; }
APH_INLINE int32_t largest(Ints a) {
  int32_t most = a.v[0];
  for (int i = 1; i < 16; ++i) most = a.v[i] > most ? a.v[i] : most;
  return most;
}
APH_INLINE int32_t sum(Ints a) {
  uint32_t total = 0;
  for (int i = 0; i < 16; ++i) total += static_cast<uint32_t>(a.v[i]);
  return static_cast<int32_t>(total);
}
APH_INLINE void store_low_bytes(int8_t* p, Ints a) {
  for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(a.v[i]);
}
APH_INLINE Ints operator-(Ints a, Ints b) { return {a.v - b.v}; }

// sum[i] += u[4i] x[0] + … + u[4i + 3] x[3], exactly.
template <Codes>
APH_INLINE Ints dot_four(Ints sum, Bytes u, int32_t x) {
  int8_t four[4];
  std::memcpy(four, &x, 4);
  const Ints words = load_from<Ints>(&u.v);  // little-endian: byte j of a word is code j
  for (int j = 0; j < 4; ++j) sum.v += (words.v >> (8 * j) & 255) * four[j];
  return sum;
}

}  // namespace aph::APH_LEVEL
