/*
 * Rows to E4M3 codes with a scale each, and back: weights and activations alike. Codes are made in f32, step by step as the operator table says,
 * so that every backend makes the same ones.
 */
#include "float8.h"

namespace nt {
namespace {

/* The largest magnitude, NaN aside. */
template <class T>
float peak_of(const T* x, int64_t count) {
  vec peaks = {};
  for_vectors(0, count, [&](int64_t i, auto lanes) NT_INLINE {
    const vec value = load_vec(x + i, lanes);
    peaks = max(max(value, -value), peaks);
  });
  return max_of(peaks);
}

template <class T>
float quantise_row(const T* x, int64_t count, uint8_t* codes) {
  const float peak = peak_of(x, count), scale = peak / e4m3_largest;
  const bool is_zero = scale < 0x1p-126f;
  const vec inverse = broadcast(is_zero ? 0.0f : e4m3_largest / peak);
  for_vectors(0, count, [&](int64_t i, auto lanes) NT_INLINE {
    store_codes(codes + i, e4m3_codes(load_vec(x + i, lanes) * inverse), lanes);
  });
  return is_zero ? 0.0f : scale;
}

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
