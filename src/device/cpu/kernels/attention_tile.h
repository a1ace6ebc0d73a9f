/*
 * Register tiles for attention and the packing of their operands.
 *
 * Scores are computed turned: keys along the rows of a tile, queries along its lanes. Then the softmax of a query runs down a lane,
 * without a sum across a vector, and the block of weights it leaves is the packed right operand of the product with v.
 *
 * A "word" is 32 bits of operand: one f32, or a pair of bf16 neighbours along the summed dimension where the processor multiplies pairs;
 * `Math` says which. A right operand has tile_columns words in a row.
 */
#pragma once

#include "kv_codes.h"

namespace nt {
namespace attention {

/* What lines are made of: f32, bf16, or E4M3 codes without their scales. */
enum class ElementKind { wide, narrow, codes };

#if defined(NT_AVX512)
constexpr int tile_rows = 14, tile_vectors = 2;
#elif defined(NT_AVX2)
constexpr int tile_rows = 6, tile_vectors = 2;
#elif defined(NT_NEON)
constexpr int tile_rows = 6, tile_vectors = 4;
#else
constexpr int tile_rows = 4, tile_vectors = 2;
#endif
constexpr int tile_columns = tile_vectors * width;

/* f32 operands, and bf16 ones widened while they are packed. */
struct Singles {
  static constexpr int per_word = 1;
  static NT_INLINE vec multiply_add(vec sum, vec a, vec b) { return sum + a * b; }
};
#if defined(NT_AVX512_BF16)
struct Pairs {
  static constexpr int per_word = 2;
  static NT_INLINE vec multiply_add(vec sum, vec a, vec b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
};
#endif

/* ---- tiles ------------------------------------------------------------------------------------------------------ */

/* sum[i][j] += a(i, word) * b(word, j) over the words; a's element (i, word) is at i * row_step + word * word_step. */
template <class Math, int row_step, int word_step, int rows, int vectors>
inline NT_INLINE void multiply(int64_t num_words, const float* a, const float* b, vec (&sum)[rows][vectors]) {
  for (int64_t word = 0; word < num_words; word++) {
    vec right[vectors];
    unrolled<vectors>([&](auto j) NT_INLINE { right[j] = load_vec(b + j * width); });
    unrolled<rows>([&](auto i) NT_INLINE {
      const vec left = broadcast(a[i * row_step]);
      unrolled<vectors>([&](auto j) NT_INLINE { sum[i][j] = Math::multiply_add(sum[i][j], left, right[j]); });
    });
    a += word_step;
    b += tile_columns;
  }
}

template <int rows, int vectors>
inline NT_INLINE void clear(vec (&sum)[rows][vectors]) {
  unrolled<rows>([&](auto i) NT_INLINE { unrolled<vectors>([&](auto j) NT_INLINE { sum[i][j] = vec{}; }); });
}

/* scores = scale * (a b) for one panel of keys. */
template <class Math>
void score_tile(int64_t num_words, const float* a, const float* b, float scale, float* scores) {
  vec sum[tile_rows][tile_vectors];
  clear(sum);
  multiply<Math, 1, tile_rows>(num_words, a, b, sum);
  const vec factor = broadcast(scale);
  unrolled<tile_rows>([&](auto i) NT_INLINE {
    unrolled<tile_vectors>([&](auto j) NT_INLINE { store_vec(scores + i * tile_columns + j * width, factor * sum[i][j]); });
  });
}

/* c = factor * c + a b, with a factor for each column; c has `rows` rows of tile_columns. */
template <class Math, int rows>
void output_tile(int64_t num_words, const float* a, const float* b, const vec* factor, float* c) {
  vec sum[rows][tile_vectors];
  clear(sum);
  multiply<Math, 1, rows>(num_words, a, b, sum);
  unrolled<rows>([&](auto i) NT_INLINE {
    unrolled<tile_vectors>([&](auto j) NT_INLINE {
      float* place = c + i * tile_columns + j * width;
      store_vec(place, load_vec(place) * factor[j] + sum[i][j]);
    });
  });
}

using OutputTile = void (*)(int64_t num_words, const float* a, const float* b, const vec* factor, float* c);

/*
 * How a head's components are cut into panels of equal height for output_tile: as few as the registers allow, padded with zeros.
 */
struct Panels {
  int64_t num_panels, rows;
  explicit Panels(int64_t head_dim)
      : num_panels(ceil_div(head_dim, tile_rows)), rows(max<int64_t>(ceil_div(head_dim, num_panels), tile_rows / 2)) {}
  int64_t padded_dim() const { return num_panels * rows; }
};

template <class Math>
OutputTile output_tile_of(int64_t rows) {
  constexpr int least = tile_rows / 2;
  struct Table {
    OutputTile tiles[tile_rows - least + 1];
    Table() {
      unrolled<tile_rows - least + 1>([&](auto i) { tiles[i] = output_tile<Math, least + i>; });
    }
  };
  static const Table table;
  return table.tiles[rows - least];
}

/* ---- packing ---------------------------------------------------------------------------------------------------- */

/* Words from element `first` on of a line, zeros from num_elements on. */
template <class Math>
inline NT_INLINE vec words_along(const float* line, int64_t first, int64_t num_elements) {
  const int64_t left = num_elements - first;
  return left >= width ? load_vec(line + first) : load_vec(line + first, some_lanes{static_cast<int>(left)});
}
template <class Math>
inline NT_INLINE vec words_along(const bf16* line, int64_t first, int64_t num_elements) {
  const int64_t left = num_elements - first;
#if defined(NT_AVX512_BF16)
  if constexpr (Math::per_word == 2) {
    const __mmask32 lanes = left >= 32 ? 0xffffffffu : (1u << left) - 1;
    return (vec)_mm512_maskz_loadu_epi16(lanes, line + first);
  } else
#endif
    return left >= width ? load_vec(line + first) : load_vec(line + first, some_lanes{static_cast<int>(left)});
}

/* Codes are exact in bf16. */
template <class Math>
inline NT_INLINE vec words_along(const e4m3* line, int64_t first, int64_t num_elements) {
  const int64_t left = num_elements - first;
  const auto part = [&](int64_t at) NT_INLINE {
    if (left - at >= width) return load_vec(line + first + at);
    return left > at ? load_vec(line + first + at, some_lanes{static_cast<int>(left - at)}) : vec{};
  };
  if constexpr (Math::per_word == 1) return part(0);
#if defined(NT_AVX512_BF16)
  if constexpr (Math::per_word == 2) return (vec)_mm512_cvtne2ps_pbh((__m512)part(width), (__m512)part(0));
#endif
}

/* Words of one or two lines side by side, `lanes` of them. */
template <class Math, class T, class Lanes>
inline NT_INLINE vec words_across(const T* line, [[maybe_unused]] const T* next, int64_t at, Lanes lanes) {
  if constexpr (Math::per_word == 1) {
    return line == nullptr ? vec{} : load_vec(line + at, lanes);
  } else {
    const uvec low = line == nullptr ? uvec{} : (uvec)load_vec(line + at, lanes) >> 16;
    const uvec high = next == nullptr ? uvec{} : (uvec)load_vec(next + at, lanes);
    return (vec)(low | high);
  }
}

#if defined(NT_AVX512)
/* Transposes 16 x 16 words. */
NT_INLINE inline void transpose(vec (&x)[16]) {
  vec t[16];
  unrolled<8>([&](auto i) NT_INLINE {
    t[2 * i] = _mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]);
  });
  const auto low = [](vec a, vec b) NT_INLINE { return (vec)_mm512_unpacklo_pd((__m512d)a, (__m512d)b); };
  const auto high = [](vec a, vec b) NT_INLINE { return (vec)_mm512_unpackhi_pd((__m512d)a, (__m512d)b); };
  unrolled<4>([&](auto i) NT_INLINE {
    x[4 * i] = low(t[4 * i], t[4 * i + 2]);
    x[4 * i + 1] = high(t[4 * i], t[4 * i + 2]);
    x[4 * i + 2] = low(t[4 * i + 1], t[4 * i + 3]);
    x[4 * i + 3] = high(t[4 * i + 1], t[4 * i + 3]);
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
#endif

/* Lines whose summed dimension runs along memory: out[word * stride + i] is word `word` of line i. Null lines are zeros. */
template <class Math, class T>
void pack_along(const void* const* lines, int stride, int64_t num_elements, float* out) {
  const int64_t num_words = ceil_div(num_elements, Math::per_word);
#if defined(NT_AVX512)
  for (int group = 0; group < stride; group += 16) {
    const int num_lines = min(stride - group, 16);
    for (int64_t word = 0; word < num_words; word += 16) {
      vec block[16];
      unrolled<16>([&](auto i) NT_INLINE {
        block[i] = vec{};
        if (i < num_lines && lines[group + i] != nullptr)
          block[i] = words_along<Math>(static_cast<const T*>(lines[group + i]), word * Math::per_word, num_elements);
      });
      transpose(block);
      float* place = out + word * stride + group;
      const int64_t words = num_words - word;
      unrolled<16>([&](auto i) NT_INLINE {
        if (i < words) store_vec(place + i * stride, block[i], some_lanes{num_lines});
      });
    }
  }
#else
  for (int64_t word = 0; word < num_words; word++) {
    for (int i = 0; i < stride; i++)
      out[word * stride + i] = lines[i] == nullptr ? 0.0f : load(static_cast<const T*>(lines[i]) + word);
  }
#endif
}

/*
 * Lines side by side along the summed dimension: out[panel * panel_stride + word * rows + i] holds component panel * rows + i of the
 * lines of word `word`, zeros beyond num_components. Up to `width` words after a panel are overwritten.
 */
template <class Math, class T>
void pack_across(const void* const* lines, int64_t num_lines, int64_t num_components, int64_t rows, int64_t panel_stride,
                 float* out) {
  const int64_t num_panels = ceil_div(num_components, rows);
  for (int64_t panel = 0; panel < num_panels; panel++) {
    float* place = out + panel * panel_stride;
    for (int64_t k = 0; k < num_lines; k += Math::per_word) {
      const T* line = static_cast<const T*>(lines[k]);
      const T* next = Math::per_word == 2 && k + 1 < num_lines ? static_cast<const T*>(lines[k + 1]) : nullptr;
      for (int64_t i = 0; i < rows; i += width) {
        const int64_t at = panel * rows + i, left = num_components - at;
        vec words{};
        if (left >= width) words = words_across<Math>(line, next, at, all_lanes{});
        else if (left > 0) words = words_across<Math>(line, next, at, some_lanes{static_cast<int>(left)});
        store_vec(place + i, words);
      }
      place += rows;
    }
  }
}

/* The same for lines of any kind; pairs are never of f32. */
template <class Math>
void pack_along(ElementKind kind, const void* const* lines, int stride, int64_t num_elements, float* out) {
  if constexpr (Math::per_word == 1) {
    if (kind == ElementKind::wide) return pack_along<Math, float>(lines, stride, num_elements, out);
  }
  if (kind == ElementKind::codes) return pack_along<Math, e4m3>(lines, stride, num_elements, out);
  pack_along<Math, bf16>(lines, stride, num_elements, out);
}
template <class Math>
void pack_across(ElementKind kind, const void* const* lines, int64_t num_lines, int64_t num_components, int64_t rows,
                 int64_t panel_stride, float* out) {
  if constexpr (Math::per_word == 1) {
    if (kind == ElementKind::wide) return pack_across<Math, float>(lines, num_lines, num_components, rows, panel_stride, out);
  }
  if (kind == ElementKind::codes)
    return pack_across<Math, e4m3>(lines, num_lines, num_components, rows, panel_stride, out);
  pack_across<Math, bf16>(lines, num_lines, num_components, rows, panel_stride, out);
}

/* lines[c][i] = factor[c] * x[i * tile_columns + c] for i < num_components: a turned block back into rows. */
template <class T>
void store_turned(const float* x, const vec* factor, int64_t num_components, void* const* lines, int num_lines) {
#if defined(NT_AVX512)
  for (int group = 0; group < num_lines; group += 16) {
    for (int64_t first = 0; first < num_components; first += 16) {
      vec block[16];
      unrolled<16>([&](auto i) NT_INLINE {
        block[i] = first + i < num_components ? load_vec(x + (first + i) * tile_columns + group) * factor[group / 16] : vec{};
      });
      transpose(block);
      const some_lanes lanes{static_cast<int>(min<int64_t>(num_components - first, 16))};
      unrolled<16>([&](auto i) NT_INLINE {
        if (group + i < num_lines) store_vec(static_cast<T*>(lines[group + i]) + first, block[i], lanes);
      });
    }
  }
#else
  for (int c = 0; c < num_lines; c++) {
    const float own = factor[c / width][c % width];
    for (int64_t i = 0; i < num_components; i++) store(static_cast<T*>(lines[c]) + i, own * x[i * tile_columns + c]);
  }
#endif
}

}  // namespace attention
}  // namespace nt
