// What every product of rows with a weight is told; its own arguments follow.
#pragma once

#include "runtime.h"

struct aph_product {
  int64_t rows;
  aph_runtime* runtime;
  const float* x;     // [rows, inputs]
  const float* bias;  // [outputs], or null
  float* result;      // [rows, outputs]
  int64_t x_stride, result_stride;
};
