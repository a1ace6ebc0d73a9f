/* Naive matrix product: correct, not fast. */
#include "common.h"

namespace nt {
namespace {

template <class In, class Out>
void matmul(const nt_matmul_args& args) {
  const In* a = data<const In>(args.a);
  const In* b = data<const In>(args.b);
  Out* c = data<Out>(args.c);
  const float alpha = static_cast<float>(args.alpha), beta = static_cast<float>(args.beta);
  parallel_for(args.m, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      for (int64_t j = 0; j < args.n; j++) {
        float sum = 0;
        for (int64_t p = 0; p < args.k; p++) {
          const float x = load(a + (args.transpose_a ? p * args.lda + i : i * args.lda + p));
          const float y = load(b + (args.transpose_b ? j * args.ldb + p : p * args.ldb + j));
          sum += x * y;
        }
        float value = alpha * sum;
        if (beta != 0) value += beta * load(c + i * args.ldc + j);
        if (args.bias.data) value += args.bias.dtype == f32 ? data<float>(args.bias)[j] : load(data<bf16>(args.bias) + j);
        store(c + i * args.ldc + j, value);
      }
    }
  });
}

}  // namespace
}  // namespace nt

NT_OP(matmul) {
  using namespace nt;
  if (args.a.dtype != args.b.dtype) return unsupported;
  if (args.bias.data && args.bias.dtype != f32 && args.bias.dtype != bf16_code) return unsupported;
  return dispatch_float(args.a.dtype, [&](auto in) {
    return dispatch_float(args.c.dtype, [&](auto out) {
      matmul<typename decltype(in)::type, typename decltype(out)::type>(args);
    });
  });
}
