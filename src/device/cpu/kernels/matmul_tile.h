/*
 * The register tile of the matrix product: `rows` x `vectors * width` sums in registers, one rank-1 update per packed word.
 *
 * A "word" is 32 bits of packed operand: one f32, or a pair of bf16 neighbours along k where the processor multiplies pairs.
 * Both have the same layout, so one tile serves both; `Math` says what a multiply-add is. Packed A: for each word `rows` words in a
 * row; packed B: for each word `vectors * width` words.
 */
#pragma once

#include "vector.h"

namespace nt::gemm {

/* The largest tile whose sums, with a row of b and one element of a, fill the registers. */
#if defined(NT_AVX512)
constexpr int max_rows = 14, max_vectors = 2;
#elif defined(NT_AVX2)
constexpr int max_rows = 6, max_vectors = 2;
#elif defined(NT_NEON)
constexpr int max_rows = 6, max_vectors = 4;
#else
constexpr int max_rows = 4, max_vectors = 2;
#endif
constexpr int max_columns = max_vectors * width;

/* f32 operands, and bf16 operands widened while they are packed. */
template <class SourceType>
struct WideMath {
  using Source = SourceType;
  static constexpr int per_word = 1;
  static NT_INLINE vec multiply_add(vec sum, vec a, vec b) { return sum + a * b; }
};

#if defined(NT_AVX512_BF16)
/* Pairs of bf16 with f32 sums. */
struct PairMath {
  using Source = bf16;
  static constexpr int per_word = 2;
  static NT_INLINE vec multiply_add(vec sum, vec a, vec b) {
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
  }
};
using Bf16Math = PairMath;
#else
using Bf16Math = WideMath<bf16>;
#endif
using F32Math = WideMath<float>;

using Tile = void (*)(int64_t num_words, const float* a, const float* b, float* c, int64_t ldc, const float* alpha, bool accumulate);

/* c = alpha * a b, or c += alpha * a b; c has `rows` rows of `vectors * width` columns. */
template <class Math, int rows, int vectors>
void tile(int64_t num_words, const float* a, const float* b, float* c, int64_t ldc, const float* alpha, bool accumulate) {
  vec sum[rows][vectors];
  unrolled<rows>([&](auto i) NT_INLINE { unrolled<vectors>([&](auto j) NT_INLINE { sum[i][j] = vec{}; }); });
  /* The compiler must not keep the addresses or alpha beside the sums: it would spill vectors in the loop. */
#pragma GCC unroll 1
  for (int i = 0; i < rows; i++) {
    const float* place = c + i * ldc;
    asm volatile("" : "+r"(place));
    __builtin_prefetch(place, 1);
    if (vectors * width > 16) __builtin_prefetch(place + 16, 1);
  }
  for (int64_t word = 0; word < num_words; word++) {
    vec right[vectors];
    unrolled<vectors>([&](auto j) NT_INLINE { right[j] = load_vec(b + j * width); });
    unrolled<rows>([&](auto i) NT_INLINE {
      const vec left = broadcast(a[i]);
      unrolled<vectors>([&](auto j) NT_INLINE { sum[i][j] = Math::multiply_add(sum[i][j], left, right[j]); });
    });
    a += rows;
    b += vectors * width;
  }
  asm volatile("" : "+r"(alpha), "+r"(c));
  const vec scale = broadcast(*alpha);
  if (accumulate) {
    unrolled<rows>([&](auto i) NT_INLINE {
      unrolled<vectors>([&](auto j) NT_INLINE {
        float* place = c + i * ldc + j * width;
        store_vec(place, load_vec(place) + scale * sum[i][j]);
      });
    });
  } else {
    unrolled<rows>([&](auto i) NT_INLINE {
      unrolled<vectors>([&](auto j) NT_INLINE { store_vec(c + i * ldc + j * width, scale * sum[i][j]); });
    });
  }
}

/* tiles[rows - 1][vectors - 1] */
template <class Math>
struct TileTable {
  Tile tiles[max_rows][max_vectors];

  TileTable() {
    unrolled<max_rows>([&](auto i) {
      unrolled<max_vectors>([&](auto j) { tiles[i][j] = tile<Math, i + 1, j + 1>; });
    });
  }
};

}  // namespace nt::gemm
