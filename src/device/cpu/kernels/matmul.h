/*
 * The matrix product's problem and its two ways of working: packed tiles, and dot products for a few rows against a matrix whose
 * lines lie along k (decoding). matmul.cpp chooses; matmul_f32.cpp and matmul_bf16.cpp compile the two element types.
 */
#pragma once

#include "common.h"

namespace nt::gemm {

/* c = alpha * op(a) op(b) + beta * c + bias, as the operator table says. */
struct Product {
  const void* a;
  const void* b;
  void* c;
  const void* bias; /* null: none */
  int64_t m, n, k, lda, ldb, ldc;
  bool transpose_a, transpose_b;
  bool c_is_bf16, bias_is_bf16;
  float alpha, beta;
};

int32_t multiply_f32(const Product& product);
int32_t multiply_bf16(const Product& product);

/* c = alpha * sums + (is_first ? beta * c + bias : c) for a block of finished sums (rows x columns, row stride ld). */
void finish_block(const Product& product, const float* sums, int64_t ld, int64_t row, int64_t num_rows, int64_t column,
                  int64_t num_columns, bool is_first);

}  // namespace nt::gemm
