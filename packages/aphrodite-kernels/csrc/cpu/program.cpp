// A program: recorded op calls, run one after the other in one call from Python.

#include <cstdint>

#include "turn.h"

struct aph_step {
  int (*function)(const void* arguments);
  const int64_t* arguments;  // an op's structure, which begins with its rows
};

// A field of a step's arguments that is set to one of the counts.
struct aph_patch {
  int64_t* field;
  int64_t count;
};

APH_EXPORT void aph_program_patch(const aph_patch* patches, int64_t length, const int64_t* counts) {
  for (int64_t i = 0; i < length; ++i) *patches[i].field = counts[patches[i].count];
}

// Returns `length`, or the number of the step that failed. Steps without rows are left out.
APH_EXPORT int64_t aph_program_run(aph_runtime* runtime, const aph_step* steps, int64_t length) {
  const aph::Turn turn(runtime);
  for (int64_t i = 0; i < length; ++i)
    if (*steps[i].arguments > 0 && steps[i].function(steps[i].arguments)) return i;
  return length;
}
