// Threads that wait for the next loop: spinning for a moment, then parked by the kernel at no cost.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "runtime.h"

namespace aph {

class Pool {
 public:
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }
  // The caller works too, as worker 0. One caller at a time.
  void run(int64_t count, int64_t grain, Range range, const void* context);

 private:
  void work(int worker);
  void take_pieces(int worker);
  uint32_t wait_for_job(uint32_t seen);

  // The loop in progress: written while no worker is in it.
  Range range_ = nullptr;
  const void* context_ = nullptr;
  int64_t count_ = 0;
  int64_t grain_ = 1;
  alignas(64) std::atomic<int64_t> next_{0};

  // state_ = number of the job << 16 | open << 15 | workers inside. A worker enters while the job
  // is open, so the caller never waits for one that slept through it.
  alignas(64) std::atomic<uint32_t> state_{0};
  alignas(64) std::atomic<uint32_t> parked_{0};
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> workers_;
};

}  // namespace aph
