/* The matrix product of f32 operands. */
#include "matmul_dots.h"
#include "matmul_packed.h"

namespace nt::gemm {

int32_t multiply_f32(const Product& product) {
  if (DotProduct<F32Math>::fits(product)) return DotProduct<F32Math>(product).run();
  return PackedProduct<F32Math>(product).run();
}

}  // namespace nt::gemm
