/*
 * Philox 4x32 with 10 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): four random words for a
 * counter under a seed, the same as src/base/random.ts gives, `width` counters at a time.
 */
#pragma once

#include "vector.h"

namespace nt {

namespace philox_detail {

constexpr uint32_t multiplier0 = 0xd2511f53u, multiplier1 = 0xcd9e8d57u, weyl0 = 0x9e3779b9u, weyl1 = 0xbb67ae85u;

#if defined(NT_AVX2)
/* Numbers of 32 bits in the low halves of 64-bit lanes; the high halves are rubbish, which the multiplication does not look at. */
typedef uint64_t wide_words __attribute__((vector_size(width * 4)));

inline NT_INLINE wide_words multiply(wide_words x, uint32_t m) {
#if defined(NT_AVX512)
  return (wide_words)_mm512_mul_epu32((__m512i)x, _mm512_set1_epi64(m));
#else
  return (wide_words)_mm256_mul_epu32((__m256i)x, _mm256_set1_epi64x(m));
#endif
}

struct State {
  wide_words c0, c1, c2, c3;

  NT_INLINE void round(uint32_t key0, uint32_t key1) {
    const wide_words product0 = multiply(c0, multiplier0), product1 = multiply(c2, multiplier1);
    c0 = (product1 >> 32) ^ c1 ^ static_cast<uint64_t>(key0);
    c1 = product1;
    c2 = (product0 >> 32) ^ c3 ^ static_cast<uint64_t>(key1);
    c3 = product0;
  }
};

/* Words of the even counters and of the odd ones, in the order of the counters. */
inline NT_INLINE uvec merge(wide_words even, wide_words odd) { return (uvec)((even & 0xffffffffu) | (odd << 32)); }
#else
inline NT_INLINE void multiply(uvec x, uint32_t m, uvec& high, uvec& low) {
  for (int i = 0; i < width; i++) {
    const uint64_t product = static_cast<uint64_t>(x[i]) * m;
    high[i] = static_cast<uint32_t>(product >> 32);
    low[i] = static_cast<uint32_t>(product);
  }
}
#endif

}  // namespace philox_detail

/* words[0 .. 3] of the counters first, first + 1, ... */
inline NT_INLINE void philox(uint64_t seed, uint64_t first, uvec (&words)[4]) {
  using namespace philox_detail;
  const uvec lanes = (uvec)lane_numbers(), low = lanes + static_cast<uint32_t>(first);
  const uvec has_carry = (uvec)(low < lanes); /* all ones where the sum went round */
  const uvec high = uvec{} + static_cast<uint32_t>(first >> 32) - has_carry;
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
#if defined(NT_AVX2)
  State even{(wide_words)low, (wide_words)high, wide_words{}, wide_words{}};
  State odd{(wide_words)low >> 32, (wide_words)high >> 32, wide_words{}, wide_words{}};
  for (int round = 0; round < 10; round++, key0 += weyl0, key1 += weyl1) {
    even.round(key0, key1);
    odd.round(key0, key1);
  }
  words[0] = merge(even.c0, odd.c0);
  words[1] = merge(even.c1, odd.c1);
  words[2] = merge(even.c2, odd.c2);
  words[3] = merge(even.c3, odd.c3);
#else
  uvec c0 = low, c1 = high, c2{}, c3{};
  for (int round = 0; round < 10; round++, key0 += weyl0, key1 += weyl1) {
    uvec high0, low0, high1, low1;
    multiply(c0, multiplier0, high0, low0);
    multiply(c2, multiplier1, high1, low1);
    c0 = high1 ^ c1 ^ key0;
    c1 = low1;
    c2 = high0 ^ c3 ^ key1;
    c3 = low0;
  }
  words[0] = c0;
  words[1] = c1;
  words[2] = c2;
  words[3] = c3;
#endif
}

/* The upper 24 bits as a number in 0 .. 1, exactly. */
inline NT_INLINE vec uniform(uvec words) { return __builtin_convertvector((ivec)(words >> 8), vec) * 0x1p-24f; }

}  // namespace nt
