/* Gradients of low-rank additions: the two products that they are. */
#include "common.h"

namespace nt {
namespace {

int32_t multiply(const nt_matmul_args& args) { return nt_matmul(reinterpret_cast<const int64_t*>(&args)); }

}  // namespace
}  // namespace nt

NT_OP(low_rank_backward) {
  using namespace nt;
  if (args.low.dtype != args.dy.dtype || args.b.dtype != args.dy.dtype || args.dlow.dtype != args.dy.dtype) return unsupported;
  nt_matmul_args down{};
  down.a = args.dy;
  down.b = args.b;
  down.c = args.dlow;
  down.m = args.num_rows;
  down.n = args.rank;
  down.k = args.width;
  down.lda = args.dy_row_stride;
  down.ldb = args.rank;
  down.ldc = args.dlow_row_stride;
  down.alpha = args.alpha;
  const int32_t status = multiply(down);
  if (status != ok) return status;
  nt_matmul_args gradient{};
  gradient.a = args.dy;
  gradient.b = args.low;
  gradient.c = args.db;
  gradient.m = args.width;
  gradient.n = args.rank;
  gradient.k = args.num_rows;
  gradient.lda = args.dy_row_stride;
  gradient.ldb = args.low_row_stride;
  gradient.ldc = args.rank;
  gradient.transpose_a = 1;
  gradient.alpha = args.alpha;
  gradient.beta = args.beta;
  return multiply(gradient);
}
