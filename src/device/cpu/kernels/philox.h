/*
 * Philox 4x32 with 10 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): four random words for a
 * counter under a seed, the same as src/base/random.ts gives, `width` counters at a time.
 */
#pragma once

#include "vector.h"

namespace nt {

namespace philox_detail {

/* The 64-bit products of x and m. */
inline NT_INLINE void multiply(uvec x, uint32_t m, uvec& high, uvec& low) {
#if defined(NT_AVX512)
  const __m512i a = (__m512i)x, b = _mm512_set1_epi32(static_cast<int>(m));
  const __m512i even = _mm512_mul_epu32(a, b), odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), b);
  high = (uvec)_mm512_mask_mov_epi32(_mm512_srli_epi64(even, 32), 0xaaaa, odd);
  low = (uvec)_mm512_mask_mov_epi32(even, 0xaaaa, _mm512_slli_epi64(odd, 32));
#elif defined(NT_AVX2)
  const __m256i a = (__m256i)x, b = _mm256_set1_epi32(static_cast<int>(m));
  const __m256i even = _mm256_mul_epu32(a, b), odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), b);
  high = (uvec)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
  low = (uvec)_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
#else
  for (int i = 0; i < width; i++) {
    const uint64_t product = static_cast<uint64_t>(x[i]) * m;
    high[i] = static_cast<uint32_t>(product >> 32);
    low[i] = static_cast<uint32_t>(product);
  }
#endif
}

}  // namespace philox_detail

/* words[0 .. 3] of the counters first, first + 1, ... */
inline NT_INLINE void philox(uint64_t seed, uint64_t first, uvec (&words)[4]) {
  const uvec lanes = (uvec)lane_numbers(), low = lanes + static_cast<uint32_t>(first);
  const uvec has_carry = (uvec)(low < lanes); /* all ones where the sum went round */
  uvec c0 = low, c1 = uvec{} + static_cast<uint32_t>(first >> 32) - has_carry, c2{}, c3{};
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; round++) {
    uvec high0, low0, high1, low1;
    philox_detail::multiply(c0, 0xd2511f53u, high0, low0);
    philox_detail::multiply(c2, 0xcd9e8d57u, high1, low1);
    c0 = high1 ^ c1 ^ key0;
    c1 = low1;
    c2 = high0 ^ c3 ^ key1;
    c3 = low0;
    key0 += 0x9e3779b9u;
    key1 += 0xbb67ae85u;
  }
  words[0] = c0;
  words[1] = c1;
  words[2] = c2;
  words[3] = c3;
}

/* The upper 24 bits as a number in 0 .. 1, exactly. */
inline NT_INLINE vec uniform(uvec words) { return __builtin_convertvector((ivec)(words >> 8), vec) * 0x1p-24f; }

}  // namespace nt
