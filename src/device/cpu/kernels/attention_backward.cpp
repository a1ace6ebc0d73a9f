/*
 * Gradients of attention, with the weights computed anew from the log of their sums (Dao et al., "FlashAttention", 2022).
 *
 * For a chunk of keys and a pair of tiles of queries: s = q k, dp = do v, p = exp(s - log sum), ds = p (dp - sum of o do), and with these
 * dv += p do, dk += ds q, dq += ds k. As in the forward pass, scores are turned: keys along rows, queries along lanes.
 *
 * A task takes a (sequence, key/value head) with all of its chunks and tiles. Where there are fewer of these than threads, gradients of
 * keys and of queries are computed apart, from the same scores in the same order, so that the results are the same bits.
 */
#include "attention.h"
#include "vector_math.h"

namespace nt {
namespace attention {
namespace {

/* Column tiles that are worked on together, so that sums over queries are long enough to pay for loading what they add to. */
constexpr int num_segments = 2;
/* Blocks of keys per chunk: what is packed of a tile of queries serves all of them. */
constexpr int64_t blocks_per_chunk = 2;
constexpr int64_t chunk_keys = blocks_per_chunk * block_keys;
/* Pairs of tiles per task where gradients of queries are computed apart. */
constexpr int64_t pairs_per_task = 4;

struct BackwardProblem : Problem {
  HeadRows doutput, dq, dk, dv;
  const float* deltas; /* sums of o * do, like log_sums */
};

/* One panel of keys: c += a b over the queries of some segments; a has a row of words per key. */
template <class Math, int vectors>
void gradient_tile(int segments, const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* c, int64_t ldc) {
  constexpr int num_words = tile_columns / Math::per_word;
  vec sum[tile_rows][vectors];
  clear(sum);
  for (int segment = 0; segment < segments; segment++)
    multiply<Math, num_words, 1>(num_words, a + segment * a_stride, b + segment * b_stride, sum);
  unrolled<tile_rows>([&](auto i) NT_INLINE {
    unrolled<vectors>([&](auto j) NT_INLINE {
      float* place = c + i * ldc + j * width;
      store_vec(place, load_vec(place) + sum[i][j]);
    });
  });
}

using GradientTile = void (*)(int segments, const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* c, int64_t ldc);

template <class Math>
GradientTile gradient_tile_of(int64_t vectors) {
  static constexpr GradientTile tiles[] = {
      gradient_tile<Math, 1>, gradient_tile<Math, 2>,
#if defined(NT_NEON)
      gradient_tile<Math, 3>, gradient_tile<Math, 4>,
#endif
  };
  return tiles[vectors - 1];
}

/* What one task computes. */
struct Work {
  const Sequence* sequence;
  int64_t kv_head, first_chunk, end_chunk, first_pair, end_pair;
  bool wants_queries, wants_keys;
};

/* Sizes, in floats, and places of a thread's scratch memory. */
template <class Math>
struct Layout {
  int64_t head_dim, head_words, block_words, ld;
  Panels panels;
  /* Of one block of keys. */
  int64_t key_panel_stride, turned_panel_stride, block_stride, values_begin, turned_begin;
  /* Of one tile of queries: operands along and across, for q and do. */
  int64_t along_floats, across_panel_stride, across_floats, num_column_panels;
  static constexpr int64_t segment_floats = block_keys * tile_columns;

  explicit Layout(int64_t dim)
      : head_dim(dim), head_words(ceil_div(dim, Math::per_word)), block_words(block_keys / Math::per_word),
        ld(round_up(dim, width)), panels(dim) {
    key_panel_stride = head_words * tile_rows;
    turned_panel_stride = round_up(block_words * panels.rows + width, 16);
    values_begin = round_up(panels_per_block * key_panel_stride, 16);
    turned_begin = 2 * values_begin;
    block_stride = turned_begin + panels.num_panels * turned_panel_stride;
    along_floats = head_words * tile_columns;
    num_column_panels = ceil_div(dim, tile_columns);
    across_panel_stride = tile_columns / Math::per_word * tile_columns;
    across_floats = num_column_panels * across_panel_stride;
  }
  int64_t query_gradient_floats() const { return panels.padded_dim() * tile_columns; }
};

template <class Math>
class Backward {
 public:
  explicit Backward(const BackwardProblem& problem) : p(problem), layout(problem.heads.head_dim) {}

  int32_t run(const Sequence* sequences, int64_t num_sequences) const {
    const int64_t num_units = num_sequences * p.heads.num_kv_heads, threads = num_threads();
    const bool is_apart = 7 * num_units < 5 * ceil_div(num_units, threads) * threads; /* products computed either way */
    if (!is_apart) {
      return run_tasks(num_units, [&](int64_t task) {
        Work work = whole(sequences, task);
        work.wants_queries = work.wants_keys = true;
        return work;
      });
    }
    for (int64_t unit = 0; unit < num_units; unit++) {
      const Work all = whole(sequences, unit);
      int32_t status = run_tasks(all.end_chunk, [&](int64_t task) {
        Work work = all;
        work.wants_keys = true;
        work.first_chunk = task;
        work.end_chunk = task + 1;
        return work;
      });
      if (status != ok) return status;
      const int64_t num_tasks = ceil_div(all.end_pair, pairs_per_task);
      status = run_tasks(num_tasks, [&](int64_t task) {
        Work work = all;
        work.wants_queries = true;
        work.first_pair = (num_tasks - 1 - task) * pairs_per_task; /* those that see most keys first */
        work.end_pair = min(work.first_pair + pairs_per_task, all.end_pair);
        return work;
      });
      if (status != ok) return status;
    }
    return ok;
  }

 private:
  const BackwardProblem& p;
  const Layout<Math> layout;

  Work whole(const Sequence* sequences, int64_t unit) const {
    const Sequence& sequence = sequences[unit / p.heads.num_kv_heads];
    const int64_t kv_head = unit % p.heads.num_kv_heads;
    const int64_t num_pairs = ceil_div(num_tiles(p, sequence, kv_head), num_segments);
    return {&sequence, kv_head, 0, ceil_div(sequence.num_keys, chunk_keys), 0, num_pairs, false, false};
  }

  template <class MakeWork>
  int32_t run_tasks(int64_t num_tasks, const MakeWork& make_work) const {
    bool has_failed = false;
    parallel_tasks(num_tasks, [&](int64_t task, int thread) {
      if (!run_work(make_work(task), thread)) raise_flag(has_failed);
    });
    return has_failed ? out_of_memory : ok;
  }

  struct Memory {
    float *query_gradients, *chunk, *key_gradients, *value_gradients, *tiles, *scores;
  };

  /* A tile's packed operands, in this order. */
  float* queries_along(const Memory& m, int segment) const { return m.tiles + segment * layout.along_floats; }
  float* outputs_along(const Memory& m, int segment) const { return queries_along(m, num_segments + segment); }
  float* queries_across(const Memory& m, int segment) const {
    return queries_along(m, 2 * num_segments) + segment * layout.across_floats;
  }
  float* outputs_across(const Memory& m, int segment) const { return queries_across(m, num_segments + segment); }
  int64_t tiles_floats() const { return 2 * num_segments * (layout.along_floats + layout.across_floats); }

  /* Scores and gradients of one segment as they come from the tiles, then as operands of the products with them. */
  static float* raw_scores(const Memory& m, int segment) { return m.scores + segment * 2 * Layout<Math>::segment_floats; }
  static float* raw_gradients(const Memory& m, int segment) { return raw_scores(m, segment) + Layout<Math>::segment_floats; }
  /* In pairs they get places of their own: weights and gradients with pairs of queries, gradients with pairs of keys. */
  static constexpr int64_t pair_floats = Layout<Math>::segment_floats / 2;
  static float* pair_place(const Memory& m, int kind, int segment) {
    return m.scores + num_segments * 2 * Layout<Math>::segment_floats + (kind * num_segments + segment) * pair_floats;
  }
  static float* weights_of(const Memory& m, int segment) {
    return Math::per_word == 1 ? raw_scores(m, segment) : pair_place(m, 0, segment);
  }
  static float* gradients_of(const Memory& m, int segment) {
    return Math::per_word == 1 ? raw_gradients(m, segment) : pair_place(m, 1, segment);
  }
  static float* gradient_words_of(const Memory& m, int segment) {
    return Math::per_word == 1 ? raw_gradients(m, segment) : pair_place(m, 2, segment);
  }
  static constexpr int64_t operand_stride = Math::per_word == 1 ? 2 * Layout<Math>::segment_floats : pair_floats;

  bool run_work(const Work& work, int thread) const {
    const int64_t num_own_tiles = num_segments * (work.end_pair - work.first_pair);
    const int64_t query_floats = work.wants_queries ? num_own_tiles * layout.query_gradient_floats() : 0;
    const int64_t chunk_floats = blocks_per_chunk * layout.block_stride, key_floats = chunk_keys * layout.ld;
    const int64_t score_floats = num_segments * (2 * Layout<Math>::segment_floats + 3 * pair_floats);
    float* memory = static_cast<float*>(
        scratch(thread, 4 * (query_floats + chunk_floats + 2 * key_floats + tiles_floats() + score_floats)));
    if (memory == nullptr) return false;
    Memory m;
    m.scores = memory;
    m.tiles = m.scores + score_floats;
    m.chunk = m.tiles + tiles_floats();
    m.key_gradients = m.chunk + chunk_floats;
    m.value_gradients = m.key_gradients + key_floats;
    m.query_gradients = m.value_gradients + key_floats;
    std::memset(m.query_gradients, 0, static_cast<size_t>(query_floats) * sizeof(float));
    for (int64_t chunk = work.first_chunk; chunk < work.end_chunk; chunk++) {
      std::memset(m.key_gradients, 0, static_cast<size_t>(2 * key_floats) * sizeof(float));
      pack_chunk(work, chunk, m);
      for (int64_t pair = work.first_pair; pair < work.end_pair; pair++) run_pair(work, chunk, pair, m);
      if (work.wants_keys) store_keys(work, chunk, m);
    }
    if (work.wants_queries) store_queries(work, m);
    return true;
  }

  void pack_chunk(const Work& work, int64_t chunk, const Memory& m) const {
    const void* lines[block_keys];
    for (int64_t block = 0; block < blocks_per_chunk; block++) {
      const int64_t first = chunk * chunk_keys + block * block_keys;
      const int64_t num_keys = min<int64_t>(work.sequence->num_keys - first, block_keys);
      float* out = m.chunk + block * layout.block_stride;
      key_places(*work.sequence, p.v, work.kv_head, first, lines);
      for (int64_t panel = 0; panel * tile_rows < num_keys; panel++)
        pack_along<Math>(p.v.kind(), lines + panel * tile_rows, tile_rows, layout.head_dim,
                         out + layout.values_begin + panel * layout.key_panel_stride);
      key_places(*work.sequence, p.k, work.kv_head, first, lines);
      for (int64_t panel = 0; panel * tile_rows < num_keys; panel++)
        pack_along<Math>(p.k.kind(), lines + panel * tile_rows, tile_rows, layout.head_dim, out + panel * layout.key_panel_stride);
      pack_across<Math>(p.k.kind(), lines, num_keys, layout.head_dim, layout.panels.rows, layout.turned_panel_stride,
                        out + layout.turned_begin);
    }
  }

  void pack_tile(const Columns& columns, int segment, bool wants_keys, const Memory& m) const {
    void* lines[tile_columns];
    columns.places(p.doutput, lines);
    pack_along<Math>(p.doutput.kind(), lines, tile_columns, layout.head_dim, outputs_along(m, segment));
    if (wants_keys)
      pack_across<Math>(p.doutput.kind(), lines, tile_columns, layout.head_dim, tile_columns, layout.across_panel_stride,
                        outputs_across(m, segment));
    columns.places(p.q, lines);
    pack_along<Math>(p.q.kind(), lines, tile_columns, layout.head_dim, queries_along(m, segment));
    if (wants_keys)
      pack_across<Math>(p.q.kind(), lines, tile_columns, layout.head_dim, tile_columns, layout.across_panel_stride,
                        queries_across(m, segment));
  }

  void run_pair(const Work& work, int64_t chunk, int64_t pair, const Memory& m) const {
    static_assert(num_segments == 2, "a segment that sees nothing is the first or the last");
    const int64_t first_key = chunk * chunk_keys;
    const Columns columns[num_segments] = {Columns(p, *work.sequence, work.kv_head, num_segments * pair),
                                           Columns(p, *work.sequence, work.kv_head, num_segments * pair + 1)};
    if (max(columns[0].most, columns[1].most) <= first_key) return;
    for (int segment = 0; segment < num_segments; segment++)
      if (columns[segment].most > first_key) pack_tile(columns[segment], segment, work.wants_keys, m);
    for (int64_t index = 0; index < blocks_per_chunk; index++) {
      const int64_t first = first_key + index * block_keys;
      const int begin = columns[0].most > first ? 0 : 1, end = columns[1].most > first ? 2 : 1;
      const int64_t most = max(columns[0].most, columns[1].most);
      if (most <= first) break;
      const Block block{index, first, min<int64_t>(most - first, block_keys)};
      for (int segment = begin; segment < end; segment++) {
        score_segment(columns[segment], segment, block, m);
        if (!work.wants_queries) continue;
        const int64_t tile = num_segments * (pair - work.first_pair) + segment;
        add_to_queries(m.query_gradients + tile * layout.query_gradient_floats(), segment, block, m);
      }
      if (work.wants_keys) add_to_keys(block, begin, end, m);
    }
  }

  struct Block {
    int64_t index, first_key, num_keys; /* within the chunk; keys that a query of the pair sees */
  };

  /* The weights of a segment and the gradients of its scores, as operands. */
  void score_segment(const Columns& columns, int segment, const Block& block, const Memory& m) const {
    float* scores = raw_scores(m, segment);
    float* gradients = raw_gradients(m, segment);
    const float* keys = m.chunk + block.index * layout.block_stride;
    const float* values = keys + layout.values_begin;
    const int64_t num_panels = ceil_div(block.num_keys, tile_rows), num_rows = num_panels * tile_rows;
    for (int64_t panel = 0; panel < num_panels; panel++) {
      const int64_t place = panel * tile_rows * tile_columns;
      score_tile<Math>(layout.head_words, keys + panel * layout.key_panel_stride, queries_along(m, segment),
                       p.scale, scores + place);
      score_tile<Math>(layout.head_words, values + panel * layout.key_panel_stride, outputs_along(m, segment), 1, gradients + place);
    }
    if (block.first_key + num_rows > columns.least) mask_scores(columns, block.first_key, num_rows, -INFINITY, scores);
    alignas(64) float log_sums[tile_columns] = {}, deltas[tile_columns] = {};
    for (int c = 0; c < columns.count; c++) {
      const int64_t index = columns.head[c] * p.num_rows + columns.row[c];
      /* A query that sees nothing has -infinity here and in its scores: any number serves. */
      log_sums[c] = p.log_sums[index] == -INFINITY ? 0 : p.log_sums[index];
      deltas[c] = p.deltas[index];
    }
    unrolled<tile_vectors>([&](auto j) NT_INLINE {
      soften(num_rows, load_vec(log_sums + j * width), load_vec(deltas + j * width), j * width, segment, m);
    });
  }

  NT_INLINE void soften(int64_t num_rows, vec log_sum, vec delta, int64_t column, int segment, const Memory& m) const {
    float* scores = raw_scores(m, segment) + column;
    float* gradients = raw_gradients(m, segment) + column;
    if constexpr (Math::per_word == 1) {
      for (int64_t at = 0; at < num_rows * tile_columns; at += tile_columns) {
        const vec weight = exp(load_vec(scores + at) - log_sum);
        store_vec(scores + at, weight);
        store_vec(gradients + at, weight * (load_vec(gradients + at) - delta));
      }
    } else {
#if defined(NT_AVX512_BF16)
      bf16* weights = reinterpret_cast<bf16*>(weights_of(m, segment)) + column;
      bf16* by_query = reinterpret_cast<bf16*>(gradients_of(m, segment)) + column;
      float* by_key = gradient_words_of(m, segment) + column;
      const auto narrow_row = [](bf16* place, vec x) NT_INLINE {
        *reinterpret_cast<half_words_anywhere*>(place) = narrow(((uvec)x + 0x8000) >> 16);
      };
      for (int64_t at = 0; at < num_rows * tile_columns; at += 2 * tile_columns) {
        vec rows[2];
        unrolled<2>([&](auto i) NT_INLINE {
          const int64_t place = at + i * tile_columns;
          const vec weight = exp(load_vec(scores + place) - log_sum);
          narrow_row(weights + place, weight);
          rows[i] = weight * (load_vec(gradients + place) - delta);
          narrow_row(by_query + place, rows[i]);
        });
        store_vec(by_key + at / 2, pair_words(rows[0], rows[1]));
      }
#endif
    }
  }

  void add_to_queries(float* query_gradients, int segment, const Block& block, const Memory& m) const {
    const OutputTile add = output_tile_of<Math>(layout.panels.rows);
    const float* turned = m.chunk + block.index * layout.block_stride + layout.turned_begin;
    vec ones[tile_vectors];
    unrolled<tile_vectors>([&](auto j) { ones[j] = broadcast(1.0f); });
    for (int64_t panel = 0; panel < layout.panels.num_panels; panel++)
      add(ceil_div(block.num_keys, Math::per_word), turned + panel * layout.turned_panel_stride, gradient_words_of(m, segment), ones,
          query_gradients + panel * layout.panels.rows * tile_columns);
  }

  void add_to_keys(const Block& block, int begin, int end, const Memory& m) const {
    constexpr int64_t row_words = tile_columns / Math::per_word;
    for (int64_t panel = 0; panel * tile_rows < block.num_keys; panel++) {
      const int64_t row = block.index * block_keys + panel * tile_rows, operand = panel * tile_rows * row_words;
      for (int64_t part = 0; part < layout.num_column_panels; part++) {
        const int64_t column = part * tile_columns, place = row * layout.ld + column;
        const GradientTile add = gradient_tile_of<Math>(min<int64_t>((layout.ld - column) / width, tile_vectors));
        add(end - begin, weights_of(m, begin) + operand, operand_stride,
            outputs_across(m, begin) + part * layout.across_panel_stride, layout.across_floats, m.value_gradients + place, layout.ld);
        add(end - begin, gradients_of(m, begin) + operand, operand_stride,
            queries_across(m, begin) + part * layout.across_panel_stride, layout.across_floats, m.key_gradients + place, layout.ld);
      }
    }
  }

  static void store_row(const HeadRows& rows, int64_t row, int64_t head, const float* values, float factor, int64_t head_dim) {
    void* place = rows.at(row, head);
    for_vectors(0, head_dim, [&](int64_t i, auto lanes) NT_INLINE {
      const vec value = load_vec(values + i, lanes) * factor;
      if (rows.is_wide) store_vec(static_cast<float*>(place) + i, value, lanes);
      else store_vec(static_cast<bf16*>(place) + i, value, lanes);
    });
  }

  void store_keys(const Work& work, int64_t chunk, const Memory& m) const {
    const int64_t first = chunk * chunk_keys, num_keys = min(work.sequence->num_keys - first, chunk_keys);
    for (int64_t s = 0; s < num_keys; s++) {
      const int64_t row = work.sequence->key_row(first + s);
      store_row(p.dk, row, work.kv_head, m.key_gradients + s * layout.ld, p.scale, layout.head_dim);
      store_row(p.dv, row, work.kv_head, m.value_gradients + s * layout.ld, 1, layout.head_dim);
    }
  }

  void store_queries(const Work& work, const Memory& m) const {
    vec scale[tile_vectors];
    unrolled<tile_vectors>([&](auto j) { scale[j] = broadcast(p.scale); });
    for (int64_t tile = 0; tile < num_segments * (work.end_pair - work.first_pair); tile++) {
      const Columns columns(p, *work.sequence, work.kv_head, num_segments * work.first_pair + tile);
      void* lines[tile_columns];
      columns.places(p.dq, lines);
      const float* gradients = m.query_gradients + tile * layout.query_gradient_floats();
      if (p.dq.is_wide) store_turned<float>(gradients, scale, layout.head_dim, lines, columns.count);
      else store_turned<bf16>(gradients, scale, layout.head_dim, lines, columns.count);
    }
  }
};

/* deltas[head, row] = sum over components of o * do */
template <class T>
void sum_products(const nt_attention_backward_args& args, float* deltas) {
  const Elements<T> o(args.o), doutput(args.doutput);
  const int64_t grain = max<int64_t>(1, pointwise_grain / max<int64_t>(args.num_heads * args.head_dim, 1));
  parallel_for(args.num_rows, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; row++) {
      for (int64_t head = 0; head < args.num_heads; head++) {
        const int64_t at = row * args.o_row_stride + head * args.head_dim;
        vec total{};
        for_vectors(0, args.head_dim, [&](int64_t i, auto lanes) NT_INLINE {
          total += o.load(at + i, lanes) * doutput.load(at + i, lanes);
        });
        deltas[head * args.num_rows + row] = sum_of(total);
      }
    }
  });
}

}  // namespace
}  // namespace attention

NT_OP(attention_backward) {
  using namespace attention;
  const int32_t status =
      dispatch_elements({args.q, args.k, args.v, args.o, args.doutput, args.dq, args.dk, args.dv}, [](auto) {});
  if (status != ok) return status;
  if (args.log_sum_exp.dtype != f32 || (args.cu_seq_lens.data != nullptr && args.cu_seq_lens.dtype != i32)) return unsupported;
  float* deltas = static_cast<float*>(shared_scratch(0, 4 * max<int64_t>(args.num_heads * args.num_rows, 1)));
  Sequence* sequences = make_sequences(args);
  if (deltas == nullptr || sequences == nullptr) return out_of_memory;
  dispatch_elements({args.o, args.doutput}, [&](auto tag) { sum_products<typename decltype(tag)::type>(args, deltas); });

  const int64_t head_dim = args.head_dim;
  const BackwardProblem problem{{HeadRows(args.q, args.q_row_stride, head_dim), HeadRows(args.k, args.k_row_stride, head_dim),
                                 HeadRows(args.v, args.v_row_stride, head_dim), HeadRows(args.o, args.o_row_stride, head_dim),
                                 {args.num_heads, args.num_kv_heads, head_dim}, static_cast<float>(args.scale), args.causal != 0,
                                 data<float>(args.log_sum_exp), args.num_rows},
                                HeadRows(args.doutput, args.o_row_stride, head_dim),
                                HeadRows(args.dq, args.q_row_stride, head_dim),
                                HeadRows(args.dk, args.k_row_stride, head_dim),
                                HeadRows(args.dv, args.v_row_stride, head_dim),
                                deltas};
#if defined(NT_AVX512_BF16)
  if (!problem.q.is_wide && !problem.k.is_wide && !problem.v.is_wide && !problem.doutput.is_wide)
    return Backward<Pairs>(problem).run(sequences, args.num_sequences);
#endif
  return Backward<Singles>(problem).run(sequences, args.num_sequences);
}

}  // namespace nt
