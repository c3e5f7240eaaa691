// While it lives, this thread has the runtime to itself; a thread may take a turn within its turn.
#pragma once

#include "runtime.h"

namespace aph {

class Turn {
 public:
  explicit Turn(aph_runtime* runtime);
  ~Turn();
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  aph_runtime* runtime_;
  const aph_runtime* before_ = nullptr;
};

}  // namespace aph
