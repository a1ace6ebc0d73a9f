/*
 * Packing: copies a strip of an operand into the order in which tiles read it (matmul_tile.h), converting bf16 to words on the way.
 *
 * An operand is a set of lines (rows of op(a), columns of op(b)) along k. `along_k` operands have each line contiguous in memory, the
 * others have the lines side by side.
 */
#pragma once

#include "matmul_tile.h"

namespace nt::gemm {

template <class Source>
struct Operand {
  const Source* data;
  int64_t stride; /* elements between lines when along_k, else between steps of k */
  bool along_k;
};

/* Lines to pack side by side: `stride` places for each word, zeros after the lines. */
struct Strip {
  int64_t line, num_lines, stride;
  float* out;
};
/* What to pack of each strip: words first .. last of lines of num_k elements. */
struct WordRange {
  int64_t first, last, num_k;
};

/* ---- vectors of words: the first `count` of `width` (more counts as all), zeros after them ---------------------- */

inline some_lanes first_of(int64_t count) {
  return {static_cast<int>(max<int64_t>(0, min<int64_t>(count, width)))};
}

#if defined(NT_AVX512)

template <class Source>
inline vec load_first(const Source* p, int64_t count) {
  return load_vec(p, first_of(count));
}
inline void store_first(float* p, vec x, int64_t count) { store_vec(p, x, first_of(count)); }

/* Neighbours in memory as pairs; the second of the last pair is zero where count is odd. */
inline vec load_first_pairs(const bf16* p, int64_t count) {
  const __mmask32 lanes = count >= 32 ? 0xffffffffu : (1u << max<int64_t>(count, 0)) - 1;
  return _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(lanes, p));
}
/* Elements of two rows as pairs; zeros for the second row where there is none. */
inline vec load_first_pairs(const bf16* low, const bf16* high, bool has_high, int64_t count) {
  const uvec first = (uvec)load_first(low, count), second = (uvec)load_first(high, has_high ? count : 0);
  return (vec)(first >> 16 | second);
}

/* Transposes 16 x 16 words. */
NT_INLINE inline void transpose(vec (&x)[16]) {
  vec t[16];
  unrolled<8>([&](auto i) NT_INLINE {
    t[2 * i] = _mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]);
  });
  unrolled<4>([&](auto i) NT_INLINE {
    const auto pair = [](__m512 a, __m512 b, bool high) NT_INLINE {
      const __m512d c = _mm512_castps_pd(a), d = _mm512_castps_pd(b);
      return _mm512_castpd_ps(high ? _mm512_unpackhi_pd(c, d) : _mm512_unpacklo_pd(c, d));
    };
    x[4 * i] = pair(t[4 * i], t[4 * i + 2], false);
    x[4 * i + 1] = pair(t[4 * i], t[4 * i + 2], true);
    x[4 * i + 2] = pair(t[4 * i + 1], t[4 * i + 3], false);
    x[4 * i + 3] = pair(t[4 * i + 1], t[4 * i + 3], true);
  });
  /* Each x now holds, in its four 128-bit parts, four lines of four columns: gather the parts. */
  unrolled<4>([&](auto i) NT_INLINE {
    t[i] = _mm512_shuffle_f32x4(x[i], x[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_f32x4(x[i], x[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_f32x4(x[i + 8], x[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_f32x4(x[i + 8], x[i + 12], 0xdd);
  });
  unrolled<4>([&](auto i) NT_INLINE {
    x[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
    x[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
    x[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
    x[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
  });
}

#elif defined(NT_AVX2)

template <class Source>
inline vec load_first(const Source* p, int64_t count) {
  if (count >= width) return load_vec(p);
  if constexpr (std::is_same_v<Source, float>) {
    const ivec lanes = lane_numbers() < static_cast<int32_t>(count);
    return _mm256_maskload_ps(p, (__m256i)lanes);
  }
  return load_vec(p, first_of(count));
}
/* In pieces: masked stores are slow before AVX-512. */
inline void store_first(float* p, vec x, int64_t count) {
  if (count >= 8) {
    store_vec(p, x);
    return;
  }
  __m128 rest = _mm256_castps256_ps128(x);
  if (count & 4) {
    _mm_storeu_ps(p, rest);
    rest = _mm256_extractf128_ps(x, 1);
    p += 4;
  }
  if (count & 2) {
    _mm_storel_pi(reinterpret_cast<__m64*>(p), rest);
    rest = _mm_movehl_ps(rest, rest);
    p += 2;
  }
  if (count & 1) _mm_store_ss(p, rest);
}

/* Transposes 8 x 8 words. */
NT_INLINE inline void transpose(vec (&x)[8]) {
  vec t[8];
  unrolled<4>([&](auto i) NT_INLINE {
    t[2 * i] = _mm256_unpacklo_ps(x[2 * i], x[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_ps(x[2 * i], x[2 * i + 1]);
  });
  unrolled<2>([&](auto i) NT_INLINE {
    x[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
    x[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
    x[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
    x[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
  });
  unrolled<4>([&](auto i) NT_INLINE {
    t[i] = _mm256_permute2f128_ps(x[i], x[i + 4], 0x20);
    t[i + 4] = _mm256_permute2f128_ps(x[i], x[i + 4], 0x31);
  });
  unrolled<8>([&](auto i) NT_INLINE { x[i] = t[i]; });
}

#else

template <class Source>
inline vec load_first(const Source* p, int64_t count) {
  return count >= width ? load_vec(p) : load_vec(p, first_of(count));
}
inline void store_first(float* p, vec x, int64_t count) {
  if (count >= width) store_vec(p, x);
  else store_vec(p, x, first_of(count));
}
NT_INLINE inline void transpose(vec (&x)[width]) {
  vec t[width];
  for (int i = 0; i < width; i++)
    for (int j = 0; j < width; j++) t[i][j] = x[j][i];
  for (int i = 0; i < width; i++) x[i] = t[i];
}

#endif

/* ---- strips ----------------------------------------------------------------------------------------------------- */

template <class Math>
void pack_along_k(const Operand<typename Math::Source>& x, const Strip& strip, const WordRange& words) {
  for (int64_t group = 0; group < strip.stride; group += width) {
    const int64_t num_lines = strip.num_lines - group;
    for (int64_t word = words.first; word < words.last; word += width) {
      const int64_t k = word * Math::per_word;
      vec block[width];
      unrolled<width>([&](auto i) NT_INLINE {
        block[i] = vec{};
        if (i < num_lines) {
          const auto* source = x.data + (strip.line + group + i) * x.stride + k;
          if constexpr (Math::per_word == 2) block[i] = load_first_pairs(source, words.num_k - k);
          else block[i] = load_first(source, words.num_k - k);
        }
      });
      transpose(block);
      float* place = strip.out + (word - words.first) * strip.stride + group;
      unrolled<width>([&](auto i) NT_INLINE {
        if (i < words.last - word) store_first(place + i * strip.stride, block[i], strip.stride - group);
      });
    }
  }
}

/* Strips that lie side by side are packed in one sweep, so that memory is read in long runs. The rows are far apart, where
 * the processor's own prefetching does not reach. Rows a multiple of 4 KiB apart compete for the same eight places of the
 * first-level cache, so fewer of them are fetched ahead. */
template <class Math>
void pack_across_k(const Operand<typename Math::Source>& x, const Strip* strips, int num_strips, const WordRange& words) {
  constexpr int64_t size = sizeof(typename Math::Source);
  const int64_t rows_ahead = x.stride * size % 4096 == 0 ? 4 : 12;
  const Strip& last = strips[num_strips - 1];
  const int64_t sweep_bytes = (last.line + last.num_lines - strips[0].line) * size;
  for (int64_t word = words.first; word < words.last; word++) {
    const auto* row = x.data + word * Math::per_word * x.stride;
    const auto* ahead = reinterpret_cast<const char*>(row + rows_ahead * x.stride + strips[0].line);
    for (int64_t byte = 0; byte < sweep_bytes; byte += 64) {
      __builtin_prefetch(ahead + byte);
      if constexpr (Math::per_word == 2) __builtin_prefetch(ahead + x.stride * size + byte);
    }
    for (int s = 0; s < num_strips; s++) {
      const Strip& strip = strips[s];
      const auto* source = row + strip.line;
      float* out = strip.out + (word - words.first) * strip.stride;
      for (int64_t group = 0; group < strip.stride; group += width) {
        vec value;
        if constexpr (Math::per_word == 2) {
          const auto* low = source + group;
          value = load_first_pairs(low, low + x.stride, 2 * word + 1 < words.num_k, strip.num_lines - group);
        } else {
          value = load_first(source + group, strip.num_lines - group);
        }
        store_first(out + group, value, strip.stride - group);
      }
    }
  }
}

/* Packs strips, which lie side by side in x. */
template <class Math>
void pack(const Operand<typename Math::Source>& x, const Strip* strips, int num_strips, const WordRange& words) {
  if (!x.along_k) {
    pack_across_k<Math>(x, strips, num_strips, words);
    return;
  }
  for (int s = 0; s < num_strips; s++) pack_along_k<Math>(x, strips[s], words);
}

}  // namespace nt::gemm
