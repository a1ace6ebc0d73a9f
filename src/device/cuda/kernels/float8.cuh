// E4M3 (a sign, four bits of exponent with bias 7, three of fraction; the largest number 448, no infinities, codes 0x7f and 0xff NaN)
// to float and back: by instructions from Ada on, by arithmetic with the same results before. Codes are made to nearest even; what is
// larger than 448 becomes 448, NaN becomes 0x7f.
#pragma once

constexpr float e4m3_largest = 448.0f;

__device__ __forceinline__ float e4m3_value(uint8_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80) << 24, magnitude = code & 0x7f;
  if (magnitude == 0x7f) return not_a_number;
  // Below 2^-6 in steps of 2^-9; else the exponent's bias becomes 127.
  const uint32_t bits = magnitude < 8 ? __float_as_uint(static_cast<float>(magnitude) * 0.001953125f) : (magnitude << 20) + (120u << 23);
  return __uint_as_float(bits | sign);
}

__device__ __forceinline__ float to_float(e4m3 x) { return e4m3_value(x.bits); }

__device__ __forceinline__ uint8_t e4m3_code(float x) {
#if __CUDA_ARCH__ >= 890
  return static_cast<uint8_t>(e4m3x2_bits(x, 0.0f));
#else
  const uint32_t bits = __float_as_uint(x), sign = bits >> 24 & 0x80, magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000u) return 0x7f;
  const uint32_t bounded = smaller(magnitude, __float_as_uint(e4m3_largest));
  // Below 2^-6, f32 numbers from 2^14 on have the steps of 2^-9 that the sum is rounded to.
  if (bounded < 0x3c800000u) return static_cast<uint8_t>(sign | (__float_as_uint(__uint_as_float(bounded) + 16384.0f) - 0x46800000u));
  return static_cast<uint8_t>(sign | (((bounded + 0x7ffffu + (bounded >> 20 & 1)) >> 20) - (120u << 3)));
#endif
}

// Four neighbours in a word, the first in its lowest byte.
__device__ __forceinline__ uint32_t e4m3_codes(const float (&values)[4]) {
#if __CUDA_ARCH__ >= 890
  return e4m3x2_bits(values[0], values[1]) | static_cast<uint32_t>(e4m3x2_bits(values[2], values[3])) << 16;
#else
  uint32_t codes = 0;
#pragma unroll
  for (int i = 0; i < 4; i++) codes |= static_cast<uint32_t>(e4m3_code(values[i])) << (8 * i);
  return codes;
#endif
}
__device__ __forceinline__ void e4m3_values(uint32_t codes, float (&values)[4]) {
#if __CUDA_ARCH__ >= 890
  // By way of f16, which holds every code.
  const uint32_t low = f16x2_of_e4m3x2(static_cast<uint16_t>(codes)), high = f16x2_of_e4m3x2(static_cast<uint16_t>(codes >> 16));
  values[0] = f16_value(static_cast<uint16_t>(low)), values[1] = f16_value(static_cast<uint16_t>(low >> 16));
  values[2] = f16_value(static_cast<uint16_t>(high)), values[3] = f16_value(static_cast<uint16_t>(high >> 16));
#else
#pragma unroll
  for (int i = 0; i < 4; i++) values[i] = e4m3_value(static_cast<uint8_t>(codes >> (8 * i)));
#endif
}

// ---- a row to codes with a scale, as the operator table says (quantiseRows) ----

// The largest magnitude of some elements and `peak`, NaN aside.
template <int count>
__device__ __forceinline__ float larger_magnitude(float peak, const float (&values)[count]) {
#pragma unroll
  for (int i = 0; i < count; i++) peak = fmaxf(peak, fabsf(values[i]));
  return peak;
}

struct RowScale {
  float scale;
  // What the row's elements are multiplied by.
  float inverse;
};
__device__ __forceinline__ RowScale row_scale(float peak) {
  const float scale = peak / e4m3_largest;
  if (scale < 1.1754943508222875e-38f) return {0.0f, 0.0f};
  return {scale, e4m3_largest / peak};
}

// Codes of a pack of the row; the address is a multiple of `count`.
template <int count>
__device__ __forceinline__ void store_codes(uint8_t* codes, const float (&values)[count], float inverse) {
  uint32_t words[count / 4];
#pragma unroll
  for (int i = 0; i < count / 4; i++) {
    float quad[4];
#pragma unroll
    for (int j = 0; j < 4; j++) quad[j] = values[4 * i + j] * inverse;
    words[i] = e4m3_codes(quad);
  }
  if constexpr (count == 8) *reinterpret_cast<uint2*>(codes) = {words[0], words[1]};
  else *reinterpret_cast<uint32_t*>(codes) = words[0];
}
