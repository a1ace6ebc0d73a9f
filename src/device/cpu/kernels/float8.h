/*
 * E4M3 (a sign, four bits of exponent with bias 7, three of fraction; the largest number 448, no infinities, codes 0x7f and 0xff NaN)
 * to f32 and back, one number or a vector of them. Every code is exact in f32 and in bf16.
 */
#pragma once

#include "vector.h"

namespace nt {

struct e4m3 {
  uint8_t bits;
};

constexpr float e4m3_largest = 448.0f;
constexpr uint8_t e4m3_nan = 0x7f;

/* ---- one number ------------------------------------------------------------------------------------------------- */

inline float e4m3_value(uint8_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80) << 24, magnitude = code & 0x7f;
  if (magnitude == e4m3_nan) return bit_cast<float>(0x7fc00000u);
  /* Below 2^-6 in steps of 2^-9; else the exponent's bias becomes 127. */
  const uint32_t bits = magnitude < 8 ? bit_cast<uint32_t>(static_cast<float>(magnitude) * 0x1p-9f) : (magnitude << 20) + (120u << 23);
  return bit_cast<float>(bits | sign);
}

inline float to_float(e4m3 x) { return e4m3_value(x.bits); }

/* To nearest even; what is larger than 448 becomes 448; NaN becomes 0x7f. */
inline uint8_t e4m3_code(float x) {
  const uint32_t bits = bit_cast<uint32_t>(x), sign = bits >> 24 & 0x80, magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return e4m3_nan;
  const uint32_t bounded = min(magnitude, bit_cast<uint32_t>(e4m3_largest));
  /* Below 2^-6, f32 numbers from 2^14 on have the steps of 2^-9 that the sum is rounded to. */
  if (bounded < 0x3c800000) return static_cast<uint8_t>(sign | (bit_cast<uint32_t>(bit_cast<float>(bounded) + 0x1p14f) - 0x46800000));
  return static_cast<uint8_t>(sign | (((bounded + 0x7ffff + (bounded >> 20 & 1)) >> 20) - (120 << 3)));
}

/* ---- vectors ---------------------------------------------------------------------------------------------------- */

/* `width` codes as words of 32 bits; lanes beyond the data are code 0. */
inline NT_INLINE uvec load_codes(const uint8_t* p, all_lanes = {}) {
#if defined(NT_AVX512)
  return (uvec)_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#elif defined(NT_AVX2)
  return (uvec)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#else
  uvec codes;
  for (int i = 0; i < width; i++) codes[i] = p[i];
  return codes;
#endif
}
inline NT_INLINE uvec load_codes(const uint8_t* p, some_lanes lanes) {
  uint8_t all[width] = {};
  std::memcpy(all, p, static_cast<size_t>(lanes.count));
  return load_codes(all);
}

inline NT_INLINE void store_codes(uint8_t* p, uvec codes, all_lanes = {}) {
#if defined(NT_AVX512)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8((__m512i)codes));
#else
  for (int i = 0; i < width; i++) p[i] = static_cast<uint8_t>(codes[i]);
#endif
}
inline NT_INLINE void store_codes(uint8_t* p, uvec codes, some_lanes lanes) {
  uint8_t all[width];
  store_codes(all, codes);
  std::memcpy(p, all, static_cast<size_t>(lanes.count));
}

inline NT_INLINE vec e4m3_values(uvec codes) {
  const uvec sign = (codes & 0x80) << 24, magnitude = codes & 0x7f;
  const uvec tiny = (uvec)(__builtin_convertvector((ivec)magnitude, vec) * 0x1p-9f);
  const uvec usual = (magnitude << 20) + (120u << 23);
  const uvec finite = magnitude < 8 ? tiny : usual;
  return (vec)((magnitude == e4m3_nan ? uvec{} + 0x7fc00000u : finite) | sign);
}

inline NT_INLINE uvec e4m3_codes(vec x) {
  const uvec bits = (uvec)x, sign = bits >> 24 & 0x80, magnitude = bits & 0x7fffffff;
  const uvec largest = uvec{} + bit_cast<uint32_t>(e4m3_largest);
  const uvec bounded = magnitude < largest ? magnitude : largest;
  const uvec tiny = (uvec)((vec)bounded + 0x1p14f) - 0x46800000u;
  const uvec usual = ((bounded + 0x7ffff + (bounded >> 20 & 1)) >> 20) - (120u << 3);
  const uvec finite = sign | (bounded < 0x3c800000u ? tiny : usual);
  return magnitude > 0x7f800000u ? uvec{} + uint32_t{e4m3_nan} : finite;
}

}  // namespace nt
