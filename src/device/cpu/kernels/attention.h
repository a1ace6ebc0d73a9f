/*
 * What forward, backward and paged attention share: the tensors of a problem, its sequences, and the queries that one tile of
 * columns holds.
 *
 * The queries of all heads that share a key/value head are strung together, head by head: tile `i` of a unit (sequence, key/value
 * head) holds queries i * tile_columns and following of them.
 */
#pragma once

#include "attention_tile.h"

namespace nt {
namespace attention {

/* Rows of heads: element i of head h of row r. E4M3 codes, which caches alone have, stand for themselves times a scale of their row and head. */
struct HeadRows {
  char* data;
  bool is_wide, has_codes;
  int64_t row_bytes, head_bytes;
  const float* scales = nullptr; /* (heads, num_rows) */
  int64_t num_rows = 0;

  HeadRows(const nt_tensor& tensor, int64_t row_stride, int64_t head_dim)
      : data(static_cast<char*>(tensor.data)), is_wide(tensor.dtype == f32), has_codes(tensor.dtype == u8) {
    const int64_t element = is_wide ? 4 : has_codes ? 1 : 2;
    row_bytes = row_stride * element;
    head_bytes = head_dim * element;
  }
  void* at(int64_t row, int64_t head) const { return data + row * row_bytes + head * head_bytes; }
  float scale(int64_t row, int64_t head) const { return has_codes ? scales[head * num_rows + row] : 1.0f; }
  ElementKind kind() const { return is_wide ? ElementKind::wide : has_codes ? ElementKind::codes : ElementKind::narrow; }
};

struct Heads {
  int64_t num_heads, num_kv_heads, head_dim;

  /* The query heads of a key/value head g: those h with floor(h * G / H) = g. */
  int64_t first_head(int64_t g) const { return ceil_div(g * num_heads, num_kv_heads); }
  int64_t group_size(int64_t g) const { return first_head(g + 1) - first_head(g); }
};

/* One sequence: query rows that lie together, keys that lie together or in blocks. */
struct Sequence {
  int64_t first_query, num_queries, num_keys;
  int64_t first_key;          /* row of key 0 where there is no table */
  const int32_t* block_table; /* else block of key s is block_table[s / block_size] */
  int64_t block_size;

  int64_t key_row(int64_t s) const {
    if (block_table == nullptr) return first_key + s;
    return block_table[s / block_size] * block_size + s % block_size;
  }
  /* How many keys query t sees. */
  int64_t num_visible(int64_t t, bool is_causal) const {
    if (!is_causal) return num_keys;
    return max<int64_t>(0, min(num_keys, t + 1 + num_keys - num_queries));
  }
};

struct Problem {
  HeadRows q, k, v, o;
  Heads heads;
  float scale;
  bool is_causal;
  float* log_sums; /* (H, num_rows); null where they are not wanted */
  int64_t num_rows;
};

/* The queries of one tile. */
struct Columns {
  int count;
  int64_t head[tile_columns], row[tile_columns];
  alignas(64) int32_t visible[tile_columns]; /* keys that each sees; 0 beyond `count` */
  int64_t most, least;                       /* of the visible keys of real columns */

  Columns(const Problem& p, const Sequence& sequence, int64_t kv_head, int64_t tile) {
    const int64_t num_columns = sequence.num_queries * p.heads.group_size(kv_head);
    const int64_t first = tile * tile_columns;
    count = static_cast<int>(min<int64_t>(num_columns - first, tile_columns));
    most = 0;
    least = sequence.num_keys;
    for (int c = 0; c < tile_columns; c++) {
      visible[c] = 0;
      if (c >= count) continue;
      head[c] = p.heads.first_head(kv_head) + (first + c) / sequence.num_queries;
      const int64_t t = (first + c) % sequence.num_queries, seen = sequence.num_visible(t, p.is_causal);
      row[c] = sequence.first_query + t;
      visible[c] = static_cast<int32_t>(seen);
      most = max(most, seen);
      least = min(least, seen);
    }
  }

  /* Their rows of `rows`, null beyond the last. */
  void places(const HeadRows& rows, void** lines) const {
    for (int c = 0; c < tile_columns; c++) lines[c] = c < count ? rows.at(row[c], head[c]) : nullptr;
  }
  NT_INLINE ivec visible_keys(int j) const { return *reinterpret_cast<const ivec_anywhere*>(visible + j * width); }
};

inline int64_t num_tiles(const Problem& p, const Sequence& sequence, int64_t kv_head) {
  return ceil_div(sequence.num_queries * p.heads.group_size(kv_head), tile_columns);
}

/* Keys whose scores are computed and softened at a time, and their panels. */
#if defined(NT_AVX512)
constexpr int panels_per_block = 6;
#elif defined(NT_AVX2) || defined(NT_NEON)
constexpr int panels_per_block = 10;
#else
constexpr int panels_per_block = 16;
#endif
constexpr int block_keys = panels_per_block * tile_rows;
static_assert(block_keys % 2 == 0, "pairs of keys do not straddle blocks");

/* Rows of keys first .. first + block_keys of `rows`, null after the last key. */
inline void key_places(const Sequence& sequence, const HeadRows& rows, int64_t kv_head, int64_t first, const void** lines) {
  for (int64_t s = 0; s < block_keys; s++)
    lines[s] = first + s < sequence.num_keys ? rows.at(sequence.key_row(first + s), kv_head) : nullptr;
}

/* Sets scores that a query must not see; row s of `scores` is key first_key + s. */
inline void mask_scores(const Columns& columns, int64_t first_key, int64_t num_keys, float value, float* scores) {
  const vec hidden = broadcast(value);
  for (int64_t s = 0; s < num_keys; s++) {
    const ivec key = broadcast(static_cast<int32_t>(first_key + s));
    unrolled<tile_vectors>([&](auto j) NT_INLINE {
      float* place = scores + s * tile_columns + j * width;
      store_vec(place, key < columns.visible_keys(j) ? load_vec(place) : hidden);
    });
  }
}

#if defined(NT_AVX512_BF16)
/* Words of two rows of f32: pairs of bf16, the first in the low half. */
inline NT_INLINE vec pair_words(vec low, vec high) {
  return (vec)((((uvec)low + 0x8000) >> 16) | (((uvec)high + 0x8000) & 0xffff0000u));
}
#endif

/* The sequences of attentionForward and attentionBackward, in shared scratch; null where there is no memory. */
template <class Arguments>
Sequence* make_sequences(const Arguments& args) {
  const int64_t bytes = static_cast<int64_t>(sizeof(Sequence)) * max<int64_t>(args.num_sequences, 1);
  Sequence* sequences = static_cast<Sequence*>(shared_scratch(3, bytes));
  if (sequences == nullptr) return nullptr;
  const int32_t* starts = data<int32_t>(args.cu_seq_lens);
  for (int64_t i = 0; i < args.num_sequences; i++) {
    if (starts == nullptr) {
      sequences[i] = {i * args.query_length, args.query_length, args.key_length, i * args.key_length, nullptr, 1};
    } else {
      const int64_t length = starts[i + 1] - starts[i];
      sequences[i] = {starts[i], length, length, starts[i], nullptr, 1};
    }
  }
  return sequences;
}

/* attention_forward.cpp: attention over packed keys, for sequences with more than a few queries. */
int32_t run_forward(const Problem& problem, const Sequence* sequences, int64_t num_sequences);

}  // namespace attention
}  // namespace nt
