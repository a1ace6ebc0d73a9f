/*
 * The matrix product as dot products, for a few rows against a matrix of many, both with their lines along k: decoding, where
 * the weight (n, k) is read once, straight from where it lies, at the speed of the memory.
 *
 * Each thread streams a contiguous run of the long side, some lines at a time; a line's sums do not depend on the cut.
 */
#pragma once

#include "matmul.h"
#include "matmul_pack.h"

namespace nt {

/* Lines of the short side that this way is for. */
constexpr int64_t most_dot_lines = 16;

/* `width` words of a line and what is left of it, zeros after the end. */
template <class Math>
NT_INLINE inline vec words_of(const typename Math::Source* line, int64_t k) {
#if defined(NT_AVX512)
  if constexpr (std::is_same_v<typename Math::Source, float>) return _mm512_loadu_ps(line + k);
  else if constexpr (Math::per_word == 2) return _mm512_loadu_ps(reinterpret_cast<const float*>(line + k));
  else return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(line + k)));
#elif defined(NT_AVX2)
  if constexpr (std::is_same_v<typename Math::Source, float>) return _mm256_loadu_ps(line + k);
  else
    return _mm256_castsi256_ps(_mm256_slli_epi32(
        _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(line + k))), 16));
#else
  if constexpr (std::is_same_v<typename Math::Source, float>) return load_vec(line + k);
  vec result;
  for (int i = 0; i < width; i++) result[i] = to_float(line[k + i]);
  return result;
#endif
}

template <class Math>
NT_INLINE inline vec last_words_of(const typename Math::Source* line, int64_t k, int64_t num_k) {
  typename Math::Source rest[width * Math::per_word] = {};
  std::memcpy(rest, line + k, static_cast<size_t>(num_k - k) * sizeof(rest[0]));
  return words_of<Math>(rest, 0);
}

NT_INLINE inline float sum_of(vec x) {
#if defined(NT_AVX512)
  return _mm512_reduce_add_ps(x);
#else
  float total = 0;
  for (int i = 0; i < width; i++) total += x[i];
  return total;
#endif
}

/* sums[i * shorts + j] = line i of the long side times line j of the short side. */
template <class Math, int longs, int shorts>
void dot_block(const typename Math::Source* x, int64_t x_stride, const typename Math::Source* y, int64_t y_stride,
               int64_t num_k, float* sums) {
  /* Two sums for each dot product where there are few: a multiply-add takes four cycles. */
  constexpr int step = width * Math::per_word, copies = longs * shorts <= 8 ? 2 : 1;
  vec sum[copies][longs][shorts];
  unrolled<copies>([&](auto u) NT_INLINE {
    unrolled<longs>([&](auto i) NT_INLINE { unrolled<shorts>([&](auto j) NT_INLINE { sum[u][i][j] = vec{}; }); });
  });
  const auto add = [&](auto u, auto loader) NT_INLINE {
    vec right[shorts];
    unrolled<shorts>([&](auto j) NT_INLINE { right[j] = loader(y + j * y_stride); });
    unrolled<longs>([&](auto i) NT_INLINE {
      const vec left = loader(x + i * x_stride);
      unrolled<shorts>([&](auto j) NT_INLINE { sum[u][i][j] = Math::multiply_add(sum[u][i][j], left, right[j]); });
    });
  };
  int64_t k = 0;
  for (; k + copies * step <= num_k; k += copies * step) {
    unrolled<copies>([&](auto u) NT_INLINE {
      add(u, [&](const auto* line) NT_INLINE { return words_of<Math>(line, k + u * step); });
    });
  }
  constexpr std::integral_constant<int, 0> first{};
  for (; k + step <= num_k; k += step) add(first, [&](const auto* line) NT_INLINE { return words_of<Math>(line, k); });
  if (k < num_k) add(first, [&](const auto* line) NT_INLINE { return last_words_of<Math>(line, k, num_k); });
  unrolled<longs>([&](auto i) NT_INLINE {
    unrolled<shorts>([&](auto j) NT_INLINE {
      vec total = sum[0][i][j];
      if constexpr (copies == 2) total += sum[1][i][j];
      sums[i * shorts + j] = sum_of(total);
    });
  });
}

template <class Math>
class DotProduct {
  using Source = typename Math::Source;

 public:
  explicit DotProduct(const Product& product) : p(product), is_a_short(product.m <= product.n) {
    const Source* a = static_cast<const Source*>(p.a);
    const Source* b = static_cast<const Source*>(p.b);
    long_side = is_a_short ? b : a;
    short_side = is_a_short ? a : b;
    long_stride = is_a_short ? p.ldb : p.lda;
    short_stride = is_a_short ? p.lda : p.ldb;
    num_long = is_a_short ? p.n : p.m;
    num_short = is_a_short ? p.m : p.n;
  }

  /* Whether both operands have their lines along k and one of them has few. */
  static bool fits(const Product& p) {
    return !p.transpose_a && p.transpose_b && min(p.m, p.n) <= most_dot_lines;
  }

  int32_t run() {
    /* Runs of at least some tens of kilobytes: shorter ones are done before a second thread is awake. */
    const int64_t grain = max<int64_t>(8, round_up((1 << 15) / (p.k * num_short + 1), 8));
    parallel_for(num_long, grain, [&](int64_t begin, int64_t end, int) {
      int64_t line = begin;
      for (; line + 8 <= end; line += 8) run_lines<8>(line);
      for (; line + 4 <= end; line += 4) run_lines<4>(line);
      for (; line < end; line++) run_lines<1>(line);
    });
    return ok;
  }

 private:
  const Product& p;
  const bool is_a_short;
  const Source *long_side, *short_side;
  int64_t long_stride, short_stride, num_long, num_short;

  template <int longs>
  void run_lines(int64_t line) const {
    int64_t j = 0;
    constexpr int most = longs == 8 ? 3 : 4;
    for (; j + most <= num_short; j += most) run_block<longs, most>(line, j);
    for (; j + 2 <= num_short; j += 2) run_block<longs, 2>(line, j);
    for (; j < num_short; j++) run_block<longs, 1>(line, j);
  }

  template <int longs, int shorts>
  void run_block(int64_t line, int64_t j) const {
    float sums[longs * shorts], turned[longs * shorts];
    dot_block<Math, longs, shorts>(long_side + line * long_stride, long_stride, short_side + j * short_stride,
                                   short_stride, p.k, sums);
    if (!is_a_short) {
      finish_block(p, sums, shorts, line, longs, j, shorts, true);
      return;
    }
    for (int i = 0; i < longs; i++)
      for (int s = 0; s < shorts; s++) turned[s * longs + i] = sums[i * shorts + s];
    finish_block(p, turned, longs, j, shorts, line, longs, true);
  }
};

}  // namespace nt
