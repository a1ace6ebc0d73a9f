/* The matrix product of bf16 operands. */
#include "matmul_dots.h"
#include "matmul_packed.h"

namespace nt::gemm {

int32_t multiply_bf16(const Product& product) {
  if (DotProduct<Bf16Math>::fits(product)) return DotProduct<Bf16Math>(product).run();
  return PackedProduct<Bf16Math>(product).run();
}

}  // namespace nt::gemm
