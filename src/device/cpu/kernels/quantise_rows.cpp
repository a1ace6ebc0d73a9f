/*
 * Rows to E4M3 codes with a scale each, and back: weights and activations alike. Codes are made in f32, step by step as the operator table says,
 * so that every backend makes the same ones.
 */
#include "float8_rows.h"

namespace nt {
namespace {

template <class T>
void dequantise_row(const uint8_t* codes, int64_t count, float scale, T* y) {
  for_vectors(0, count, [&](int64_t i, auto lanes) NT_INLINE {
    store_vec(y + i, broadcast(scale) * e4m3_values(load_codes(codes + i, lanes)), lanes);
  });
}

template <class Body>
void for_rows(int64_t num_rows, int64_t columns, const Body& body) {
  parallel_for(num_rows, max<int64_t>(1, pointwise_grain / max<int64_t>(columns, 1)), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; row++) body(row);
  });
}

}  // namespace
}  // namespace nt

NT_OP(quantise_rows) {
  using namespace nt;
  if (args.codes.dtype != u8 || args.scales.dtype != f32) return unsupported;
  return dispatch_float(args.x.dtype, [&](auto tag) {
    const auto* x = data<typename decltype(tag)::type>(args.x);
    for_rows(args.num_rows, args.width, [&](int64_t row) {
      data<float>(args.scales)[row] =
          quantise_row(x + row * args.x_row_stride, args.width, data<uint8_t>(args.codes) + row * args.width);
    });
  });
}

NT_OP(dequantise_rows) {
  using namespace nt;
  if (args.codes.dtype != u8 || args.scales.dtype != f32) return unsupported;
  return dispatch_float(args.y.dtype, [&](auto tag) {
    auto* y = data<typename decltype(tag)::type>(args.y);
    for_rows(args.num_rows, args.width, [&](int64_t row) {
      dequantise_row(data<uint8_t>(args.codes) + row * args.width, args.width, data<float>(args.scales)[row], y + row * args.width);
    });
  });
}
