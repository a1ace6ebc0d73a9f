/*
 * Rows to E4M3 codes with a scale each, step by step in f32 as the operator table says (quantiseRows): for the operators that end so.
 */
#pragma once

#include "float8.h"

namespace nt {

/* The largest magnitude, NaN aside. */
template <class T>
inline float peak_of(const T* x, int64_t count) {
  vec peaks = {};
  for_vectors(0, count, [&](int64_t i, auto lanes) NT_INLINE {
    const vec value = load_vec(x + i, lanes);
    peaks = max(max(value, -value), peaks);
  });
  return max_of(peaks);
}

/* Codes of a row; its scale. */
template <class T>
inline float quantise_row(const T* x, int64_t count, uint8_t* codes) {
  const float peak = peak_of(x, count), scale = peak / e4m3_largest;
  const bool is_zero = scale < 0x1p-126f;
  const vec inverse = broadcast(is_zero ? 0.0f : e4m3_largest / peak);
  for_vectors(0, count, [&](int64_t i, auto lanes) NT_INLINE {
    store_codes(codes + i, e4m3_codes(load_vec(x + i, lanes) * inverse), lanes);
  });
  return is_zero ? 0.0f : scale;
}

}  // namespace nt
