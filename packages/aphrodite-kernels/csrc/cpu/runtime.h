// What an op sees of the library.
//
// A runtime owns the threads, their memory and the instruction set; Python makes one per backend
// and every op gets it in its arguments. An op is one file in ops/:
//
//     struct aph_double_args { int64_t rows; aph_runtime* runtime; const float* x; float* y; };
//
//     namespace aph::APH_LEVEL {
//     int double_rows(const aph_double_args& args) { ...; return 0; }
//     }
//     APH_OP(aph_double, aph_double_args, double_rows)
//
// The file is compiled once per instruction set (APH_LEVEL). Everything it defines must be static
// or lie in the namespace aph::APH_LEVEL; do not call inline functions of the standard library that
// are more than an operator, for the linker merges their copies across instruction sets.
#pragma once

#include <cstddef>
#include <cstdint>

#define APH_EXPORT extern "C" __attribute__((visibility("default")))

struct aph_runtime;

namespace aph {

enum Level : int { kGeneric, kAvx2, kAvx512, kAvx512Vnni, kAvx512Bf16, kLevels };

// Keeps the message for aph_last_error() of this thread; returns 1, for an op to return. Not for the
// inside of a parallel loop, whose threads are not the caller's: check before it.
[[gnu::format(printf, 1, 2)]] int fail(const char* format, ...);

using Range = void (*)(const void* context, int64_t begin, int64_t end, int worker);

int threads(const aph_runtime* runtime);
// Calls range for [0, count) in pieces of `grain`, on any worker, in any order; returns when all
// are done. `worker` is below threads(). Not to be nested.
void run_parallel(aph_runtime* runtime, int64_t count, int64_t grain, Range range,
                  const void* context);
// Memory of one worker, or of the op as a whole (worker -1), 64-byte aligned, valid until the op
// returns or asks again; its contents are arbitrary.
void* scratch(aph_runtime* runtime, int worker, size_t bytes);

// body(begin, end, worker)
template <typename Body>
inline void parallel_for(aph_runtime* runtime, int64_t count, int64_t grain, const Body& body) {
  run_parallel(
      runtime, count, grain,
      [](const void* context, int64_t begin, int64_t end, int worker) {
        (*static_cast<const Body*>(context))(begin, end, worker);
      },
      &body);
}

using Kernel = int (*)(const void* args);
// Runs the kernel of the runtime's level with the runtime to itself.
int call(aph_runtime* runtime, const void* args, const Kernel (&kernels)[kLevels]);

}  // namespace aph

// The generic compilation of an op's file also defines the C function, which picks the level. A
// file of ops/floats is compiled up to AVX-512 only, for the later sets have nothing for it.
#define APH_DECLARE(level, args_type, function) \
  namespace aph::level {                        \
  int function(const args_type&);               \
  }
#define APH_AT(level, args_type, function) \
  [](const void* args) { return aph::level::function(*static_cast<const args_type*>(args)); }
#define APH_ENTRY(name, args_type, ...)                                   \
  APH_EXPORT int name(const args_type* args) {                            \
    static constexpr aph::Kernel kernels[aph::kLevels] = {__VA_ARGS__};   \
    return aph::call(args->runtime, args, kernels);                       \
  }

#if !defined(APH_LEVEL_generic)
#define APH_OP(name, args_type, function)
#define APH_FLOAT_OP(name, args_type, function)
#elif defined(__x86_64__)
#define APH_FLOAT_OP(name, args_type, function)                                                \
  APH_DECLARE(avx2, args_type, function)                                                       \
  APH_DECLARE(avx512, args_type, function)                                                     \
  APH_ENTRY(name, args_type, APH_AT(generic, args_type, function),                             \
            APH_AT(avx2, args_type, function), APH_AT(avx512, args_type, function),            \
            APH_AT(avx512, args_type, function), APH_AT(avx512, args_type, function))
#define APH_OP(name, args_type, function)                                                      \
  APH_DECLARE(avx2, args_type, function)                                                       \
  APH_DECLARE(avx512, args_type, function)                                                     \
  APH_DECLARE(avx512_vnni, args_type, function)                                                \
  APH_DECLARE(avx512_bf16, args_type, function)                                                \
  APH_ENTRY(name, args_type, APH_AT(generic, args_type, function),                             \
            APH_AT(avx2, args_type, function), APH_AT(avx512, args_type, function),            \
            APH_AT(avx512_vnni, args_type, function), APH_AT(avx512_bf16, args_type, function))
#else
#define APH_OP(name, args_type, function) \
  APH_ENTRY(name, args_type, APH_AT(generic, args_type, function))
#define APH_FLOAT_OP APH_OP
#endif
