/*
 * Packing: copies a strip of an operand into the order in which tiles read it (matmul_tile.h), converting bf16 to words on the way.
 *
 * An operand is a set of lines (rows of op(a), columns of op(b)) along k. `along_k` operands have each line contiguous in memory, the
 * others have the lines side by side.
 */
#pragma once

#include "matmul_tile.h"

namespace nt {

template <class Source>
struct Operand {
  const Source* data;
  int64_t stride; /* elements between lines when along_k, else between steps of k */
  bool along_k;
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
void pack_along_k(const Operand<typename Math::Source>& x, int64_t line, int64_t num_lines, int64_t num_k,
                  int64_t first_word, int64_t last_word, int64_t out_stride, float* out) {
  for (int64_t group = 0; group < out_stride; group += 16) {
    const int64_t lines = max<int64_t>(min<int64_t>(num_lines - group, 16), 0);
    const __mmask16 lanes = first_lanes(out_stride - group);
    for (int64_t word = first_word; word < last_word; word += 16) {
      __m512 block[16];
      unrolled<16>([&](auto i) NT_INLINE {
        block[i] = _mm512_setzero_ps();
        if (i < lines) {
          const auto* source = x.data + (line + group + i) * x.stride;
          if constexpr (std::is_same_v<typename Math::Source, float>) {
            block[i] = load_words(source, word, num_k);
          } else {
            block[i] = load_words<Math::per_word>(source, word * Math::per_word, num_k);
          }
        }
      });
      transpose(block);
      float* place = out + (word - first_word) * out_stride + group;
      const int64_t words = last_word - word;
      unrolled<16>([&](auto i) NT_INLINE {
        if (i < words) _mm512_mask_storeu_ps(place + i * out_stride, lanes, block[i]);
      });
    }
  }
}

template <class Math>
void pack_across_k(const Operand<typename Math::Source>& x, int64_t line, int64_t num_lines, int64_t num_k,
                   int64_t first_word, int64_t last_word, int64_t out_stride, float* out) {
  for (int64_t word = first_word; word < last_word; word++) {
    const auto* source = x.data + word * Math::per_word * x.stride + line;
    for (int64_t group = 0; group < out_stride; group += 16) {
      const __mmask16 lanes = first_lanes(num_lines - group);
      __m512 value;
      if constexpr (std::is_same_v<typename Math::Source, float>) {
        value = _mm512_maskz_loadu_ps(lanes, source + group);
      } else if constexpr (Math::per_word == 1) {
        value = widen(_mm256_maskz_loadu_epi16(lanes, source + group));
      } else {
        const __mmask16 second = 2 * word + 1 < num_k ? lanes : 0;
        const __m256i low = _mm256_maskz_loadu_epi16(lanes, source + group);
        const __m256i high = _mm256_maskz_loadu_epi16(second, source + group + x.stride);
        value = _mm512_or_ps(_mm512_castsi512_ps(_mm512_cvtepu16_epi32(low)), widen(high));
      }
      _mm512_mask_storeu_ps(out + group, first_lanes(out_stride - group), value);
    }
    out += out_stride;
  }
}

#else

template <class Math>
void pack_along_k(const Operand<typename Math::Source>& x, int64_t line, int64_t num_lines, int64_t num_k,
                  int64_t first_word, int64_t last_word, int64_t out_stride, float* out) {
  /* In short runs along k, so that both the lines read and the lines written stay in the first-level cache. */
  constexpr int64_t run = 16;
  for (int64_t start = first_word; start < last_word; start += run) {
    const int64_t end = min(start + run, last_word);
    for (int64_t i = 0; i < out_stride; i++) {
      for (int64_t word = start; word < end; word++) {
        out[(word - first_word) * out_stride + i] = i < num_lines ? word_at<Math>(x, line + i, word, num_k) : 0.0f;
      }
    }
  }
}

template <class Math>
void pack_across_k(const Operand<typename Math::Source>& x, int64_t line, int64_t num_lines, int64_t,
                   int64_t first_word, int64_t last_word, int64_t out_stride, float* out) {
  for (int64_t word = first_word; word < last_word; word++) {
    const auto* source = x.data + word * x.stride + line;
    for (int64_t i = 0; i < num_lines; i++) out[i] = to_float(source[i]);
    for (int64_t i = num_lines; i < out_stride; i++) out[i] = 0.0f;
    out += out_stride;
  }
}

#endif

/* Words first_word .. last_word of `num_lines` lines from `line` on; each word takes out_stride places, zeros after the lines. */
template <class Math>
void pack(const Operand<typename Math::Source>& x, int64_t line, int64_t num_lines, int64_t num_k,
          int64_t first_word, int64_t last_word, int64_t out_stride, float* out) {
  if (x.along_k) {
    pack_along_k<Math>(x, line, num_lines, num_k, first_word, last_word, out_stride, out);
  } else {
    pack_across_k<Math>(x, line, num_lines, num_k, first_word, last_word, out_stride, out);
  }
}

}  // namespace nt
