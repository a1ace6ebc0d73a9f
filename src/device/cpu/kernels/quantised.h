/*
 * Quantised weights in memory: the sixteen values of the packed formats, codes as vectors of f32, and the scale of a group. The
 * operator table (quantise, dequantise) defines the formats.
 */
#pragma once

#include "float8.h"

namespace nt::quantised {

enum Format : int64_t { int8 = 0, nf4 = 1, int4 = 2 };

/* Codes that are decoded at once; groups are whole blocks, or whole rows. */
constexpr int block = 32;
constexpr int vectors_per_block = block / width;
/* Groups that share a scale of the scales. */
constexpr int64_t scale_group = 256;

alignas(64) constexpr float nf4_values[16] = {
    -1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f, -0.18477343022823334f,
    -0.09105003625154495f, 0.0f, 0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
    0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f};
alignas(64) constexpr float int4_values[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};

inline const float* values_of(int64_t format) { return format == nf4 ? nf4_values : int4_values; }

inline bool is_format(int64_t format) { return format >= int8 && format <= int4; }
inline int64_t row_bytes(int64_t format, int64_t columns) { return format == int8 ? columns : ceil_div(columns, int64_t{2}); }
inline bool are_groups(int64_t group_size, int64_t columns) {
  return group_size > 0 && (group_size % block == 0 || group_size >= columns);
}

/* Where the scale of a group stands: plain, or quantised itself. */
struct Scales {
  const float* plain;
  const uint8_t* codes;
  const float* table;
  const float* outer;
  float offset;

  float operator[](int64_t group) const {
    return plain != nullptr ? plain[group] : table[codes[group]] * outer[group / scale_group] + offset;
  }
};

/* Whether dtypes and presence are as the table says; `scales` is filled. */
template <class Args>
inline int32_t read_scales(const Args& args, Scales* scales) {
  const auto is = [](const nt_tensor& tensor, int64_t dtype) { return tensor.data == nullptr || tensor.dtype == dtype; };
  if (args.codes.dtype != u8 || !is(args.scales, f32) || !is(args.scale_codes, u8) || !is(args.scale_table, f32) ||
      !is(args.scale_scales, f32))
    return unsupported;
  *scales = {data<float>(args.scales), data<uint8_t>(args.scale_codes), data<float>(args.scale_table),
             data<float>(args.scale_scales), static_cast<float>(args.scale_offset)};
  const bool is_double = scales->codes != nullptr && scales->table != nullptr && scales->outer != nullptr;
  if (!is_format(args.format)) return bad_argument;
  return scales->plain != nullptr || is_double ? ok : bad_argument;
}

/* Decodes blocks of 32 codes: int8 and E4M3 in order, the packed formats as the 16 values at even places and then those at odd ones. */
struct Int8Codes {
  static constexpr int64_t bytes = block;
  static constexpr bool is_split = false;
  explicit Int8Codes(const float*) {}

  NT_INLINE void decode(const uint8_t* at, vec (&out)[vectors_per_block]) const {
    unrolled<vectors_per_block>([&](auto i) NT_INLINE {
      const uint8_t* from = at + i * width;
#if defined(NT_AVX512)
      out[i] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
#elif defined(NT_AVX2)
      out[i] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from))));
#else
      for (int lane = 0; lane < width; lane++) out[i][lane] = static_cast<float>(static_cast<int8_t>(from[lane]));
#endif
    });
  }
};

struct E4m3Codes {
  static constexpr int64_t bytes = block;
  static constexpr bool is_split = false;
  explicit E4m3Codes(const float*) {}

  NT_INLINE void decode(const uint8_t* at, vec (&out)[vectors_per_block]) const {
    unrolled<vectors_per_block>([&](auto i) NT_INLINE { out[i] = e4m3_values(load_codes(at + i * width)); });
  }
};

struct PackedCodes {
  static constexpr int64_t bytes = block / 2;
  static constexpr bool is_split = true;
#if defined(NT_AVX512)
  __m512 values;
  explicit PackedCodes(const float* table) : values(_mm512_loadu_ps(table)) {}

  NT_INLINE void decode(const uint8_t* at, vec (&out)[vectors_per_block]) const {
    /* The permutation looks at the low four bits of a lane alone. */
    const __m512i words = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
    out[0] = _mm512_permutexvar_ps(_mm512_srli_epi32(words, 4), values);
    out[1] = _mm512_permutexvar_ps(words, values);
  }
#elif defined(NT_AVX2)
  __m256 low, high;
  explicit PackedCodes(const float* table) : low(_mm256_loadu_ps(table)), high(_mm256_loadu_ps(table + 8)) {}

  /* The entry at the low four bits of each lane: bit 3 chooses the half. */
  NT_INLINE vec look_up(__m256i words) const {
    const __m256 is_high = _mm256_castsi256_ps(_mm256_slli_epi32(words, 28));
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, words), _mm256_permutevar8x32_ps(high, words), is_high);
  }
  NT_INLINE void decode(const uint8_t* at, vec (&out)[vectors_per_block]) const {
    for (int half = 0; half < 2; half++) {
      const __m256i words = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(at + 8 * half)));
      out[half] = look_up(_mm256_srli_epi32(words, 4));
      out[2 + half] = look_up(words);
    }
  }
#else
  const float* values;
  explicit PackedCodes(const float* table) : values(table) {}

  NT_INLINE void decode(const uint8_t* at, vec (&out)[vectors_per_block]) const {
    for (int i = 0; i < block / 2; i++) {
      out[i / width][i % width] = values[at[i] >> 4];
      out[(block / 2 + i) / width][i % width] = values[at[i] & 15];
    }
  }
#endif
};

/* The last codes of a row as a whole block, zero bytes after them. */
template <class Codes>
struct LastBlock {
  uint8_t bytes[Codes::bytes] = {};
  LastBlock(const uint8_t* from, int64_t num_bytes) { std::memcpy(bytes, from, static_cast<size_t>(num_bytes)); }
};

}  // namespace nt::quantised
