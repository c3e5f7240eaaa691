#include "runtime.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>

#include "pool.h"
#include "turn.h"

namespace {

thread_local char last_error[512] = "";

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

struct Scratch {
  std::unique_ptr<void, Free> memory;
  size_t bytes = 0;
};

aph::Level best_level() {
#if defined(__x86_64__)
  const auto has = [](auto... supported) { return (supported && ...); };
  if (!has(__builtin_cpu_supports("avx2"), __builtin_cpu_supports("fma"),
           __builtin_cpu_supports("f16c")))
    return aph::kGeneric;
  if (!has(__builtin_cpu_supports("avx512f"), __builtin_cpu_supports("avx512bw"),
           __builtin_cpu_supports("avx512vl"), __builtin_cpu_supports("avx512dq")))
    return aph::kAvx2;
  if (!__builtin_cpu_supports("avx512vnni")) return aph::kAvx512;
  return __builtin_cpu_supports("avx512bf16") ? aph::kAvx512Bf16 : aph::kAvx512Vnni;
#else
  return aph::kGeneric;
#endif
}

}  // namespace

struct aph_runtime {
  aph_runtime(int threads, aph::Level level)
      : level(level), pool(threads), memory(std::make_unique<Scratch[]>(threads + 1)) {}

  const aph::Level level;
  aph::Pool pool;
  std::unique_ptr<Scratch[]> memory;  // of the op as a whole, then of each worker
  std::mutex mutex;
};

namespace aph {

int fail(const char* format, ...) {
  va_list values;
  va_start(values, format);
  std::vsnprintf(last_error, sizeof last_error, format, values);
  va_end(values);
  return 1;
}

int threads(const aph_runtime* runtime) { return runtime->pool.threads(); }

void run_parallel(aph_runtime* runtime, int64_t count, int64_t grain, Range range,
                  const void* context) {
  runtime->pool.run(count, grain, range, context);
}

void* scratch(aph_runtime* runtime, int worker, size_t bytes) {
  Scratch& own = runtime->memory[worker + 1];
  if (own.bytes < bytes) {
    const size_t rounded = (bytes + bytes / 4 + 4095) / 4096 * 4096;
    own.memory.reset();
    own.memory.reset(std::aligned_alloc(64, rounded));
    if (!own.memory) throw std::bad_alloc();
    own.bytes = rounded;
  }
  return own.memory.get();
}

// The runtime whose turn this thread holds.
static thread_local const aph_runtime* held = nullptr;

Turn::Turn(aph_runtime* runtime) : runtime_(held == runtime ? nullptr : runtime) {
  if (!runtime_) return;
  runtime_->mutex.lock();
  before_ = held;
  held = runtime_;
}

Turn::~Turn() {
  if (!runtime_) return;
  held = before_;
  runtime_->mutex.unlock();
}

int call(aph_runtime* runtime, const void* args, const Kernel (&kernels)[kLevels]) {
  const Turn turn(runtime);
  try {
    return kernels[runtime->level](args);
  } catch (const std::bad_alloc&) {
    return fail("out of memory for an op's scratch space");
  }
}

}  // namespace aph

// Null on failure. level: the highest instruction set that may be used.
APH_EXPORT aph_runtime* aph_runtime_new(int threads, int level) {
  const aph::Level best = best_level();
  if (threads < 1 || threads > 1024 || level < 0 || level >= aph::kLevels) {
    aph::fail("a runtime needs 1 to 1024 threads and a level below %d, not %d and %d",
              aph::kLevels, threads, level);
    return nullptr;
  }
  try {
    return new aph_runtime(threads, level < best ? static_cast<aph::Level>(level) : best);
  } catch (const std::exception& error) {
    aph::fail("%d threads cannot be started: %s", threads, error.what());
    return nullptr;
  }
}

APH_EXPORT void aph_runtime_delete(aph_runtime* runtime) { delete runtime; }

APH_EXPORT int aph_runtime_level(const aph_runtime* runtime) { return runtime->level; }

// The structures and functions that it was compiled with, as a number (CMakeLists.txt).
APH_EXPORT unsigned aph_interface() { return APH_INTERFACE; }

// What went wrong in the last call of this thread that failed.
APH_EXPORT const char* aph_last_error() { return last_error; }
