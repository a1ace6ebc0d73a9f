/* The matrix product: checks, the choice of the element type, and what happens to finished sums. */
#include "matmul.h"

#include "vector.h"

namespace nt::gemm {
namespace {

inline void store_floats(float* p, vec x) { store_vec(p, x); }
inline void store_floats(bf16* p, vec x) {
#if defined(NT_AVX512_BF16)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), (__m256i)_mm512_cvtneps_pbh(x));
#else
  store_vec(p, x);
#endif
}

template <class Out, class Bias>
void finish_rows(const Product& p, const float* sums, int64_t ld, int64_t row, int64_t num_rows, int64_t column,
                 int64_t num_columns, bool is_first) {
  const Bias* bias = is_first && p.bias != nullptr ? static_cast<const Bias*>(p.bias) + column : nullptr;
  const float alpha = p.alpha, beta = is_first ? p.beta : 1;
  const vec alphas = broadcast(alpha), betas = broadcast(beta);
  for (int64_t i = 0; i < num_rows; i++) {
    Out* c = static_cast<Out*>(p.c) + (row + i) * p.ldc + column;
    const float* s = sums + i * ld;
    int64_t j = 0;
    for (; j + width <= num_columns; j += width) {
      vec value = alphas * load_vec(s + j);
      if (beta != 0) value += betas * load_vec(c + j);
      if (bias != nullptr) value += load_vec(bias + j);
      store_floats(c + j, value);
    }
    for (; j < num_columns; j++) {
      float value = alpha * s[j];
      if (beta != 0) value += beta * load(c + j);
      if (bias != nullptr) value += load(bias + j);
      store(c + j, value);
    }
  }
}

/* k = 0: beta * c + bias, a row at a time over a row of zeros. */
int32_t scale_only(const Product& p) {
  float* zeros = static_cast<float*>(shared_scratch(0, 4 * p.n));
  if (zeros == nullptr) return out_of_memory;
  std::memset(zeros, 0, static_cast<size_t>(4 * p.n));
  parallel_for(p.m, max<int64_t>(1, 65536 / p.n), [&](int64_t begin, int64_t end, int) {
    finish_block(p, zeros, 0, begin, end - begin, 0, p.n, true);
  });
  return ok;
}

}  // namespace

void finish_block(const Product& p, const float* sums, int64_t ld, int64_t row, int64_t num_rows, int64_t column,
                  int64_t num_columns, bool is_first) {
  const auto finish = p.c_is_bf16 ? (p.bias_is_bf16 ? finish_rows<bf16, bf16> : finish_rows<bf16, float>)
                                  : (p.bias_is_bf16 ? finish_rows<float, bf16> : finish_rows<float, float>);
  finish(p, sums, ld, row, num_rows, column, num_columns, is_first);
}

}  // namespace nt::gemm

NT_OP(matmul) {
  using namespace nt;
  using namespace nt::gemm;
  const auto is_float = [](int64_t dtype) { return dtype == f32 || dtype == bf16_code; };
  if (!is_float(args.a.dtype) || args.a.dtype != args.b.dtype || !is_float(args.c.dtype)) return unsupported;
  if (args.bias.data != nullptr && !is_float(args.bias.dtype)) return unsupported;
  if (args.m < 0 || args.n < 0 || args.k < 0) return bad_argument;
  if (args.m == 0 || args.n == 0) return ok;
  const Product product{
      args.a.data,
      args.b.data,
      args.c.data,
      args.bias.data,
      args.m,
      args.n,
      args.k,
      args.lda,
      args.ldb,
      args.ldc,
      args.transpose_a != 0,
      args.transpose_b != 0,
      args.c.dtype == bf16_code,
      args.bias.dtype == bf16_code,
      static_cast<float>(args.alpha),
      static_cast<float>(args.beta),
  };
  if (args.k == 0) return scale_only(product);
  return args.a.dtype == f32 ? multiply_f32(product) : multiply_bf16(product);
}
