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

/* One word of line `line`, from element k = word * per_word on; beyond num_k it is zero. */
template <class Math>
inline float word_at(const Operand<typename Math::Source>& x, int64_t line, int64_t word, int64_t num_k) {
  const auto at = [&](int64_t k) { return x.data[x.along_k ? line * x.stride + k : k * x.stride + line]; };
  if constexpr (Math::per_word == 1) {
    return to_float(at(word));
  } else {
    const uint32_t low = at(2 * word).bits;
    const uint32_t high = 2 * word + 1 < num_k ? at(2 * word + 1).bits : 0;
    return bit_cast<float>(low | high << 16);
  }
}

#if defined(NT_AVX512)

inline __mmask16 first_lanes(int64_t count) {
  return count >= 16 ? 0xffff : static_cast<__mmask16>((1u << max<int64_t>(count, 0)) - 1);
}

/* Sixteen words from `k` on of a contiguous line, zeros beyond num_k. */
inline __m512 load_words(const float* line, int64_t k, int64_t num_k) {
  return _mm512_maskz_loadu_ps(first_lanes(num_k - k), line + k);
}
inline __m512 widen(__m256i x) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}
template <int per_word>
inline __m512 load_words(const bf16* line, int64_t k, int64_t num_k) {
  const int64_t left = num_k - k;
  if constexpr (per_word == 2) {
    const __mmask32 lanes = left >= 32 ? 0xffffffffu : (1u << max<int64_t>(left, 0)) - 1;
    return _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(lanes, line + k));
  } else {
    return widen(_mm256_maskz_loadu_epi16(first_lanes(left), line + k));
  }
}

/* Transposes 16 x 16 words. */
NT_INLINE inline void transpose(__m512 (&x)[16]) {
  __m512 t[16];
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

template <class Math>
void pack_along_k(const Operand<typename Math::Source>& x, const Strip& strip, const WordRange& words) {
  for (int64_t group = 0; group < strip.stride; group += 16) {
    const int64_t lines = max<int64_t>(min<int64_t>(strip.num_lines - group, 16), 0);
    const __mmask16 lanes = first_lanes(strip.stride - group);
    for (int64_t word = words.first; word < words.last; word += 16) {
      __m512 block[16];
      unrolled<16>([&](auto i) NT_INLINE {
        block[i] = _mm512_setzero_ps();
        if (i < lines) {
          const auto* source = x.data + (strip.line + group + i) * x.stride;
          if constexpr (std::is_same_v<typename Math::Source, float>) {
            block[i] = load_words(source, word, words.num_k);
          } else {
            block[i] = load_words<Math::per_word>(source, word * Math::per_word, words.num_k);
          }
        }
      });
      transpose(block);
      float* place = strip.out + (word - words.first) * strip.stride + group;
      const int64_t num_words = words.last - word;
      unrolled<16>([&](auto i) NT_INLINE {
        if (i < num_words) _mm512_mask_storeu_ps(place + i * strip.stride, lanes, block[i]);
      });
    }
  }
}

/* Strips that lie side by side are packed in one sweep, so that memory is read in long runs. The rows are far apart, where
 * the processor's own prefetching does not reach. Rows a multiple of 4 KiB apart compete for the same eight places of the
 * first-level cache, so fewer of them are fetched ahead. */
template <class Math>
void pack_across_k(const Operand<typename Math::Source>& x, const Strip* strips, int num_strips, const WordRange& words) {
  const int64_t rows_ahead = x.stride * sizeof(*x.data) % 4096 == 0 ? 4 : 12;
  for (int64_t word = words.first; word < words.last; word++) {
    const auto* row = x.data + word * Math::per_word * x.stride;
    const char* ahead = reinterpret_cast<const char*>(row + rows_ahead * x.stride + strips[0].line);
    const int64_t sweep = strips[num_strips - 1].line + strips[num_strips - 1].num_lines - strips[0].line;
    for (int64_t byte = 0; byte < sweep * static_cast<int64_t>(sizeof(*row)); byte += 64) {
      __builtin_prefetch(ahead + byte);
      if constexpr (Math::per_word == 2) __builtin_prefetch(ahead + x.stride * sizeof(*row) + byte);
    }
    [[maybe_unused]] const bool has_second = Math::per_word * word + 1 < words.num_k;
    for (int s = 0; s < num_strips; s++) {
      const Strip& strip = strips[s];
      const auto* source = row + strip.line;
      float* out = strip.out + (word - words.first) * strip.stride;
      for (int64_t group = 0; group < strip.stride; group += 16) {
        const __mmask16 lanes = first_lanes(strip.num_lines - group);
        __m512 value;
        if constexpr (std::is_same_v<typename Math::Source, float>) {
          value = _mm512_maskz_loadu_ps(lanes, source + group);
        } else if constexpr (Math::per_word == 1) {
          value = widen(_mm256_maskz_loadu_epi16(lanes, source + group));
        } else {
          const __m256i low = _mm256_maskz_loadu_epi16(lanes, source + group);
          const __m256i high = _mm256_maskz_loadu_epi16(has_second ? lanes : 0, source + group + x.stride);
          value = _mm512_or_ps(_mm512_castsi512_ps(_mm512_cvtepu16_epi32(low)), widen(high));
        }
        _mm512_mask_storeu_ps(out + group, first_lanes(strip.stride - group), value);
      }
    }
  }
}

#else

template <class Math>
void pack_along_k(const Operand<typename Math::Source>& x, const Strip& strip, const WordRange& words) {
  /* In short runs along k, so that both the lines read and the lines written stay in the first-level cache. */
  constexpr int64_t run = 16;
  for (int64_t start = words.first; start < words.last; start += run) {
    const int64_t end = min(start + run, words.last);
    for (int64_t i = 0; i < strip.stride; i++) {
      float* out = strip.out + (start - words.first) * strip.stride + i;
      for (int64_t word = start; word < end; word++, out += strip.stride)
        *out = i < strip.num_lines ? word_at<Math>(x, strip.line + i, word, words.num_k) : 0.0f;
    }
  }
}

template <class Math>
void pack_across_k(const Operand<typename Math::Source>& x, const Strip* strips, int num_strips, const WordRange& words) {
  for (int64_t word = words.first; word < words.last; word++) {
    for (int s = 0; s < num_strips; s++) {
      const Strip& strip = strips[s];
      float* out = strip.out + (word - words.first) * strip.stride;
      for (int64_t i = 0; i < strip.stride; i++)
        out[i] = i < strip.num_lines ? word_at<Math>(x, strip.line + i, word, words.num_k) : 0.0f;
    }
  }
}

#endif

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
