/*
 * The matrix product as dot products, for a few rows against a matrix of many, both with their lines along k: decoding, where
 * the weight (n, k) is read once, straight from where it lies, at the speed of the memory.
 *
 * Each thread streams a contiguous run of the long side, some lines at a time. Every dot product is summed in the same order, so a
 * row of c depends on its own row of a alone: not on the thread count, nor on the other rows of a batch.
 */
#pragma once

#include "matmul.h"
#include "matmul_pack.h"

namespace nt::gemm {

/* Lines of the short side that this way is for. */
constexpr int64_t most_dot_lines = 64;

/* `width` words of a line; and what is left at its end, zeros after it. */
template <class Math>
NT_INLINE inline vec words_of(const typename Math::Source* line, int64_t k) {
  if constexpr (Math::per_word == 2) return load_vec(reinterpret_cast<const float*>(line + k));
  else return load_vec(line + k);
}

template <class Math>
NT_INLINE inline vec last_words_of(const typename Math::Source* line, int64_t k, int64_t num_k) {
  typename Math::Source rest[width * Math::per_word] = {};
  std::memcpy(rest, line + k, static_cast<size_t>(num_k - k) * sizeof(rest[0]));
  return words_of<Math>(rest, 0);
}

/* sums[i] = the sum of the lanes of x[i]. */
template <int count>
NT_INLINE inline void sum_lanes(const vec (&x)[count], float* sums) {
#if defined(NT_AVX512)
  /* A transposition of 16 x 16 that adds at every level: 30 shuffles for sixteen sums. */
  static_assert(count <= 16, "one vector of sums");
  vec a[16], b[8], c[4];
  unrolled<16>([&](auto i) NT_INLINE {
    if constexpr (i < count) a[i] = x[i];
    else a[i] = vec{};
  });
  unrolled<8>([&](auto i) NT_INLINE {
    b[i] = _mm512_unpacklo_ps(a[2 * i], a[2 * i + 1]) + _mm512_unpackhi_ps(a[2 * i], a[2 * i + 1]);
  });
  unrolled<4>([&](auto i) NT_INLINE {
    const __m512d low = _mm512_castps_pd(b[2 * i]), high = _mm512_castps_pd(b[2 * i + 1]);
    c[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high)) + _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
  });
  const auto halves = [](vec low, vec high) NT_INLINE {
    return _mm512_shuffle_f32x4(low, high, 0x88) + _mm512_shuffle_f32x4(low, high, 0xdd);
  };
  store_vec(sums, halves(halves(c[0], c[1]), halves(c[2], c[3])), some_lanes{count});
#else
  for (int i = 0; i < count; i++) sums[i] = sum_of(x[i]);
#endif
}

/* sums[j * longs + i] = line i of the long side times line j of the short side. */
template <class Math, int longs, int shorts>
void dot_block(const typename Math::Source* x, int64_t x_stride, const typename Math::Source* y, int64_t y_stride,
               int64_t num_k, bool fetches_next, float* sums) {
  constexpr int step = width * Math::per_word;
  vec sum[shorts * longs];
  unrolled<shorts * longs>([&](auto i) NT_INLINE { sum[i] = vec{}; });
  const auto add = [&](auto loader) NT_INLINE {
    vec right[shorts];
    unrolled<shorts>([&](auto j) NT_INLINE { right[j] = loader(y + j * y_stride); });
    unrolled<longs>([&](auto i) NT_INLINE {
      const vec left = loader(x + i * x_stride);
      unrolled<shorts>([&](auto j) NT_INLINE {
        sum[j * longs + i] = Math::multiply_add(sum[j * longs + i], left, right[j]);
      });
    });
  };
  int64_t k = 0;
  for (; k + step <= num_k; k += step) {
    if (fetches_next) {
      unrolled<longs>([&](auto i) NT_INLINE { __builtin_prefetch(x + (longs + i) * x_stride + k, 0, 2); });
    }
    add([&](const auto* line) NT_INLINE { return words_of<Math>(line, k); });
  }
  if (k < num_k) add([&](const auto* line) NT_INLINE { return last_words_of<Math>(line, k, num_k); });
  sum_lanes(sum, sums);
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
    is_far = num_long * p.k * static_cast<int64_t>(sizeof(Source)) > 1 << 20;
  }

  /* Whether both operands have their lines along k and one of them has few. */
  static bool fits(const Product& p) {
    return !p.transpose_a && p.transpose_b && min(p.m, p.n) <= most_dot_lines;
  }

  int32_t run() {
    /* Runs of at least some tens of kilobytes: shorter ones are done before a second thread is awake. */
    const int64_t grain = max<int64_t>(8, round_up((1 << 15) / (p.k * num_short + 1), 8));
    parallel_for(num_long, grain, [&](int64_t begin, int64_t end, int) {
      for (int64_t line = begin; line < end; line += lines_per_run) run_lines(line, min(end - line, lines_per_run));
    });
    return ok;
  }

 private:
  /* Lines of the long side whose sums are collected before they go to c. */
  static constexpr int64_t lines_per_run = 64;

  const Product& p;
  const bool is_a_short;
  const Source *long_side, *short_side;
  int64_t long_stride, short_stride, num_long, num_short;
  /* The long side does not lie in a second-level cache: it pays to fetch the next lines while these are at work. */
  bool is_far;

  void run_lines(int64_t line, int64_t num_lines) const {
    float sums[most_dot_lines * lines_per_run];
    int64_t i = 0;
    /* Four streams: eight short lines at once lie in one or two pages, and the prefetcher gives up on them (docs/log.md). */
    for (; i + 4 <= num_lines; i += 4) run_group<4>(line + i, sums + i);
    for (; i < num_lines; i++) run_group<1>(line + i, sums + i);
    if (is_a_short) {
      finish_block(p, sums, lines_per_run, 0, num_short, line, num_lines, true);
      return;
    }
    float turned[most_dot_lines * lines_per_run];
    for (i = 0; i < num_lines; i++)
      for (int64_t j = 0; j < num_short; j++) turned[i * num_short + j] = sums[j * lines_per_run + i];
    finish_block(p, turned, num_short, line, num_lines, 0, num_short, true);
  }

  /* Some lines of the long side with all of the short side. */
  template <int longs>
  void run_group(int64_t line, float* sums) const {
    constexpr int most = 4;
    int64_t j = 0;
    for (; j + most <= num_short; j += most) run_block<longs, most>(line, j, sums);
    for (; j + 3 == num_short; j += 3) run_block<longs, 3>(line, j, sums);
    for (; j + 2 <= num_short; j += 2) run_block<longs, 2>(line, j, sums);
    for (; j < num_short; j++) run_block<longs, 1>(line, j, sums);
  }

  template <int longs, int shorts>
  void run_block(int64_t line, int64_t j, float* sums) const {
    float block[longs * shorts];
    dot_block<Math, longs, shorts>(long_side + line * long_stride, long_stride, short_side + j * short_stride,
                                   short_stride, p.k, is_far && j == 0, block);
    for (int s = 0; s < shorts; s++) std::memcpy(sums + (j + s) * lines_per_run, block + s * longs, longs * sizeof(float));
  }
};

}  // namespace nt::gemm
