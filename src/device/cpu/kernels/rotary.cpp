/* Rotary positions (Su et al., "RoFormer", 2021): pairs (i, i + rotary_dim / 2) of each head turned by the row's angles. */
#include "kv_codes.h"

namespace nt {
namespace {

/* How the heads of one row turn. */
struct Turn {
  int64_t num_heads, head_dim, rotary_dim;
  const float* cosines; /* of all pairs; the sines follow */
  vec sign;             /* of the sines */
  bool copies_rest;
};

/* The heads that begin at element `from` of x, to element `to` of y on. */
template <class T>
void turn_heads(const Elements<T>& x, int64_t from, const Elements<T>& y, int64_t to, const Turn& turn) {
  const int64_t half = turn.rotary_dim / 2;
  const float* cosines = turn.cosines;
  for (int64_t head = 0; head < turn.num_heads; head++, from += turn.head_dim, to += turn.head_dim) {
    for_vectors(0, half, [&](int64_t i, auto lanes) NT_INLINE {
      const vec cosine = load_vec(cosines + i, lanes), sine = turn.sign * load_vec(cosines + half + i, lanes);
      const vec first = x.load(from + i, lanes), second = x.load(from + half + i, lanes);
      y.store(to + i, first * cosine - second * sine, lanes);
      y.store(to + half + i, second * cosine + first * sine, lanes);
    });
    if (!turn.copies_rest) continue;
    for_vectors(turn.rotary_dim, turn.head_dim,
                [&](int64_t i, auto lanes) NT_INLINE { y.store(to + i, x.load(from + i, lanes), lanes); });
  }
}

template <class T>
void rotate_row(const nt_rotary_args& args, int64_t row) {
  const Elements<T> x(args.x), y(args.y);
  const Turn turn{args.num_heads,
                  args.head_dim,
                  args.rotary_dim,
                  data<float>(args.cos_sin) + data<int32_t>(args.positions)[row] * args.rotary_dim,
                  broadcast(args.inverse != 0 ? -1.0f : 1.0f),
                  x.at != y.at || args.x_row_stride != args.y_row_stride};
  turn_heads(x, row * args.x_row_stride, y, row * args.y_row_stride, turn);
}

template <class T>
void rotate_row_into_cache(const nt_rotary_cache_write_args& args, int64_t row) {
  const Elements<T> q(args.q), k(args.k), v(args.v), k_cache(args.k_cache), v_cache(args.v_cache);
  const float* cosines = data<float>(args.cos_sin) + data<int32_t>(args.positions)[row] * args.rotary_dim;
  const vec sign = broadcast(1.0f);
  const int64_t q_at = row * args.q_row_stride;
  turn_heads(q, q_at, q, q_at, Turn{args.num_heads, args.head_dim, args.rotary_dim, cosines, sign, false});
  const int64_t slot = data<int32_t>(args.slots)[row], columns = args.num_kv_heads * args.head_dim;
  if (slot < 0) return;
  const int64_t place = slot * columns;
  turn_heads(k, row * args.k_row_stride, k_cache, place,
             Turn{args.num_kv_heads, args.head_dim, args.rotary_dim, cosines, sign, true});
  for_vectors(0, columns, [&](int64_t i, auto lanes) NT_INLINE {
    v_cache.store(place + i, v.load(row * args.v_row_stride + i, lanes), lanes);
  });
}

/* Turned keys are rounded to their type in `heads`, of the row's keys or values, and made codes of there. */
template <class T>
void rotate_row_into_codes(const nt_rotary_cache_write_args& args, int64_t row, char* heads) {
  const Elements<T> q(args.q), k(args.k), v(args.v);
  const float* cosines = data<float>(args.cos_sin) + data<int32_t>(args.positions)[row] * args.rotary_dim;
  const vec sign = broadcast(1.0f);
  const int64_t q_at = row * args.q_row_stride;
  turn_heads(q, q_at, q, q_at, Turn{args.num_heads, args.head_dim, args.rotary_dim, cosines, sign, false});
  const int64_t slot = data<int32_t>(args.slots)[row], columns = args.num_kv_heads * args.head_dim;
  if (slot < 0) return;
  float* wide = reinterpret_cast<float*>(heads);
  const Elements<T> rounded(nt_tensor{heads + 4 * columns, args.k.dtype});
  turn_heads(k, row * args.k_row_stride, rounded, 0,
             Turn{args.num_kv_heads, args.head_dim, args.rotary_dim, cosines, sign, true});
  for_vectors(0, columns, [&](int64_t i, auto lanes) NT_INLINE { store_vec(wide + i, rounded.load(i, lanes), lanes); });
  key_codes(args).store(slot, wide);
  for_vectors(0, columns, [&](int64_t i, auto lanes) NT_INLINE {
    store_vec(wide + i, v.load(row * args.v_row_stride + i, lanes), lanes);
  });
  value_codes(args).store(slot, wide);
}

}  // namespace

NT_OP(rotary) {
  if (args.positions.dtype != i32 || args.cos_sin.dtype != f32) return unsupported;
  return dispatch_elements({args.x, args.y}, [&](auto tag) {
    const int64_t grain = max<int64_t>(1, pointwise_grain / max<int64_t>(args.num_heads * args.head_dim, 1));
    parallel_for(args.num_rows, grain, [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; row++) rotate_row<typename decltype(tag)::type>(args, row);
    });
  });
}

NT_OP(rotary_cache_write) {
  if (args.positions.dtype != i32 || args.slots.dtype != i32 || args.cos_sin.dtype != f32) return unsupported;
  const int32_t status = check_caches(args);
  if (status != ok) return status;
  const int64_t row_elements = (args.num_heads + 2 * args.num_kv_heads) * args.head_dim;
  const int64_t grain = max<int64_t>(1, pointwise_grain / max<int64_t>(row_elements, 1));
  if (args.k_cache.dtype == u8) {
    bool has_failed = false;
    const int32_t written = dispatch_elements({args.q, args.k, args.v}, [&](auto tag) {
      parallel_for(args.num_rows, grain, [&](int64_t begin, int64_t end, int thread) {
        /* A row of heads in f32, and one in its own type. */
        char* heads = static_cast<char*>(scratch(thread, 8 * max<int64_t>(args.num_kv_heads * args.head_dim, 1)));
        if (heads == nullptr) {
          raise_flag(has_failed);
          return;
        }
        for (int64_t row = begin; row < end; row++) rotate_row_into_codes<typename decltype(tag)::type>(args, row, heads);
      });
    });
    return has_failed ? out_of_memory : written;
  }
  return dispatch_elements({args.q, args.k, args.v, args.k_cache, args.v_cache}, [&](auto tag) {
    parallel_for(args.num_rows, grain, [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; row++) rotate_row_into_cache<typename decltype(tag)::type>(args, row);
    });
  });
}

/* Reading the cache takes the time: nothing to win by turning queries on the way. */
NT_OP(rotary_attention_paged) {
  const nt_rotary_cache_write_args written{args.q,          args.k,           args.v,        args.positions,
                                           args.cos_sin,    args.slots,       args.k_cache,  args.v_cache,
                                           args.k_scales,   args.v_scales,    args.num_sequences, args.num_slots,
                                           args.num_heads,  args.num_kv_heads, args.head_dim, args.rotary_dim,
                                           args.q_row_stride, args.k_row_stride, args.v_row_stride};
  const nt_attention_paged_args attended{args.q,
                                         args.k_cache,
                                         args.v_cache,
                                         args.k_scales,
                                         args.v_scales,
                                         args.block_tables,
                                         args.context_lengths,
                                         args.query_starts,
                                         args.o,
                                         args.num_sequences,
                                         args.num_slots,
                                         1,
                                         args.num_heads,
                                         args.num_kv_heads,
                                         args.head_dim,
                                         args.block_size,
                                         args.max_blocks_per_sequence,
                                         args.q_row_stride,
                                         args.o_row_stride,
                                         args.scale};
  const int32_t status = nt_rotary_cache_write(reinterpret_cast<const int64_t*>(&written));
  return status == ok ? nt_attention_paged(reinterpret_cast<const int64_t*>(&attended)) : status;
}

}  // namespace nt
