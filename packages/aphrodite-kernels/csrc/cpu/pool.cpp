#include "pool.h"

#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace aph {
namespace {

constexpr uint32_t kOpen = 1u << 15;
constexpr uint32_t kInside = kOpen - 1;
constexpr uint32_t kJob = 1u << 16;

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("isb");
#endif
}

// True once ready() is, false if it was not for about 50 µs.
template <typename Ready>
bool spin(const Ready& ready) {
  using Clock = std::chrono::steady_clock;
  constexpr auto kLimit = std::chrono::microseconds(50);
  const auto start = Clock::now();
  do {
    for (int i = 0; i < 64; ++i) {
      if (ready()) return true;
      relax();
    }
  } while (Clock::now() - start < kLimit);
  return ready();
}

}  // namespace

Pool::Pool(int threads) {
  workers_.reserve(threads - 1);
  for (int worker = 1; worker < threads; ++worker)
    workers_.emplace_back([this, worker] { work(worker); });
}

Pool::~Pool() {
  stopping_ = true;
  state_ += kJob;
  state_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void Pool::take_pieces(int worker) {
  for (;;) {
    const int64_t begin = next_.fetch_add(grain_, std::memory_order_relaxed);
    if (begin >= count_) return;
    const int64_t end = begin + grain_ < count_ ? begin + grain_ : count_;
    range_(context_, begin, end, worker);
  }
}

void Pool::run(int64_t count, int64_t grain, Range range, const void* context) {
  if (count <= 0) return;
  if (count <= grain || workers_.empty()) return range(context, 0, count, 0);
  range_ = range;
  context_ = context;
  count_ = count;
  grain_ = grain;
  next_.store(0, std::memory_order_relaxed);
  // Sequentially consistent, like parked_: either the worker sees the job or we see it parked.
  state_.store((state_.load(std::memory_order_relaxed) & ~(kJob - 1)) + kJob + kOpen);
  if (parked_.load()) state_.notify_all();
  take_pieces(0);
  state_.fetch_and(~kOpen, std::memory_order_acq_rel);
  const auto empty = [this] { return (state_.load(std::memory_order_acquire) & kInside) == 0; };
  while (!spin(empty)) std::this_thread::yield();
}

// Returns the state in which a job other than the seen one is on.
uint32_t Pool::wait_for_job(uint32_t seen) {
  uint32_t state = 0;
  const auto changed = [&] {
    state = state_.load(std::memory_order_acquire);
    return state / kJob != seen / kJob;
  };
  while (!spin(changed)) {
    parked_.fetch_add(1);
    state = state_.load();
    if (state / kJob == seen / kJob) state_.wait(state);
    parked_.fetch_sub(1);
  }
  return state;
}

void Pool::work(int worker) {
  uint32_t state = 0;
  for (;;) {
    state = wait_for_job(state);
    if (stopping_) return;
    while (state & kOpen) {
      if (!state_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel)) continue;
      take_pieces(worker);
      state_.fetch_sub(1, std::memory_order_release);
      break;
    }
  }
}

}  // namespace aph
