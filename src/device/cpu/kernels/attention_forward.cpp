/*
 * Attention forward in memory linear in the lengths (Dao et al., "FlashAttention", 2022): blocks of keys pass by a tile of
 * queries, whose running maximum and sum are kept while its output is scaled anew.
 *
 * Keys and values of a (sequence, key/value head) are packed once for all of its queries, a few heads at a time, so that scratch
 * memory stays small. Blocks and tiles do not depend on the thread count, and so neither does any result.
 */
#include "attention.h"
#include "vector_math.h"

namespace nt {
namespace attention {
namespace {

/* Packed keys and values of a group of heads: about a core's share of the last-level cache. */
constexpr int64_t packed_floats_limit = 4 << 20;

/* Sizes of packed operands, in words. */
template <class Math>
struct Layout {
  int64_t head_dim, score_words, block_words, value_panel_stride;
  Panels panels;

  explicit Layout(int64_t dim)
      : head_dim(dim), score_words(ceil_div(dim, Math::per_word)), block_words(block_keys / Math::per_word), panels(dim) {
    value_panel_stride = round_up(block_words * panels.rows + width, 16);
  }
  /* One block: the panels of its keys, then the panels of its values. */
  int64_t key_panel_stride() const { return score_words * tile_rows; }
  int64_t values_begin() const { return round_up(panels_per_block * key_panel_stride(), 16); }
  int64_t block_stride() const { return values_begin() + panels.num_panels * value_panel_stride; }
};

/* A (sequence, key/value head). */
struct Unit {
  const Sequence* sequence;
  int64_t kv_head, num_blocks, num_tiles;
  float* packed;
};
struct Task {
  int32_t unit, index;
};

struct Statistics {
  vec highest[tile_vectors], total[tile_vectors];
};

/*
 * exp2 of a block of scores less the running maximum, as words of weights; `factor` is what earlier results are scaled by. With `scales`, of the
 * values, each key's weights are multiplied by its own on the way.
 */
template <class Math, bool has_scales>
NT_INLINE inline void soften(float* scores, int64_t num_keys, [[maybe_unused]] const float* scales, Statistics& statistics, vec* factor,
                             float* weights) {
  unrolled<tile_vectors>([&](auto j) NT_INLINE {
    const float* column = scores + j * width;
    vec even = statistics.highest[j], odd = even;
    int64_t s = 0;
    for (; s + 2 <= num_keys; s += 2) {
      even = max(load_vec(column + s * tile_columns), even);
      odd = max(load_vec(column + (s + 1) * tile_columns), odd);
    }
    if (s < num_keys) even = max(load_vec(column + s * tile_columns), even);
    const vec highest = max(even, odd);
    /* A query that sees nothing yet has no maximum: any number serves, for all its scores are -infinity. */
    const vec centre = highest == -INFINITY ? vec{} : highest;
    factor[j] = exp2(statistics.highest[j] - centre);
    statistics.highest[j] = highest;
    vec total = statistics.total[j] * factor[j];
    const auto weight = [&](int64_t key) NT_INLINE {
      const vec result = exp2(load_vec(column + key * tile_columns) - centre);
      total += result;
      if constexpr (has_scales) return result * scales[key];
      return result;
    };
    float* place = weights + j * width;
    if constexpr (Math::per_word == 1) {
      for (s = 0; s < num_keys; s++) store_vec(place + s * tile_columns, weight(s));
    } else {
#if defined(NT_AVX512_BF16)
      for (s = 0; s + 2 <= num_keys; s += 2, place += tile_columns) {
        const vec low = weight(s);
        store_vec(place, pair_words(low, weight(s + 1)));
      }
      if (s < num_keys) store_vec(place, pair_words(weight(s), vec{}));
#endif
    }
    statistics.total[j] = total;
  });
}

template <class Math>
class Forward {
 public:
  explicit Forward(const Problem& problem) : p(problem), layout(problem.heads.head_dim) {}

  int32_t run(const Sequence* sequences, int64_t num_sequences) {
    const int64_t num_units = num_sequences * p.heads.num_kv_heads;
    for (int64_t next = 0; next < num_units;) {
      const int64_t first = next;
      int64_t floats = 0, num_blocks = 0, num_tasks = 0;
      do {
        const Unit unit = unit_at(sequences, next++);
        floats += unit.num_blocks * layout.block_stride();
        num_blocks += unit.num_blocks;
        num_tasks += unit.num_tiles;
      } while (next < num_units && floats < packed_floats_limit);
      const int32_t status = run_group(sequences, first, next, {floats, num_blocks, num_tasks});
      if (status != ok) return status;
    }
    return ok;
  }

 private:
  const Problem& p;
  const Layout<Math> layout;

  struct GroupSize {
    int64_t floats, num_blocks, num_tiles;
  };

  Unit unit_at(const Sequence* sequences, int64_t index) const {
    const Sequence& sequence = sequences[index / p.heads.num_kv_heads];
    const int64_t kv_head = index % p.heads.num_kv_heads;
    const int64_t tiles = num_tiles(p, sequence, kv_head);
    return {&sequence, kv_head, tiles == 0 ? 0 : ceil_div(sequence.num_keys, block_keys), tiles, nullptr};
  }

  int32_t run_group(const Sequence* sequences, int64_t begin, int64_t end, const GroupSize& size) const {
    float* packed = static_cast<float*>(shared_scratch(0, 4 * max<int64_t>(size.floats, 1)));
    Unit* units = static_cast<Unit*>(shared_scratch(1, static_cast<int64_t>(sizeof(Unit)) * (end - begin)));
    Task* tasks = static_cast<Task*>(
        shared_scratch(2, static_cast<int64_t>(sizeof(Task)) * max<int64_t>(size.num_blocks + size.num_tiles, 1)));
    if (packed == nullptr || units == nullptr || tasks == nullptr) return out_of_memory;
    Task* task = tasks;
    for (int64_t i = begin; i < end; i++) {
      Unit& unit = units[i - begin];
      unit = unit_at(sequences, i);
      unit.packed = packed;
      packed += unit.num_blocks * layout.block_stride();
      for (int64_t block = 0; block < unit.num_blocks; block++)
        *task++ = {static_cast<int32_t>(i - begin), static_cast<int32_t>(block)};
    }
    /* The last tiles see most keys: they go first, so that threads end together. */
    for (int64_t i = begin; i < end; i++)
      for (int64_t tile = units[i - begin].num_tiles; tile-- > 0;)
        *task++ = {static_cast<int32_t>(i - begin), static_cast<int32_t>(tile)};

    parallel_tasks(size.num_blocks, [&](int64_t i, int) { pack_block(units[tasks[i].unit], tasks[i].index); });
    bool has_failed = false;
    parallel_tasks(size.num_tiles, [&](int64_t i, int thread) {
      const Task& own = tasks[size.num_blocks + i];
      float* memory = static_cast<float*>(scratch(thread, 4 * tile_floats()));
      if (memory == nullptr) raise_flag(has_failed);
      else run_tile(units[own.unit], own.index, memory);
    });
    return has_failed ? out_of_memory : ok;
  }

  void pack_block(const Unit& unit, int64_t block) const {
    const void* lines[block_keys];
    float* out = unit.packed + block * layout.block_stride();
    const int64_t first = block * block_keys, num_keys = min<int64_t>(unit.sequence->num_keys - first, block_keys);
    key_places(*unit.sequence, p.k, unit.kv_head, first, lines);
    for (int64_t panel = 0; panel * tile_rows < num_keys; panel++)
      pack_along<Math>(p.k.kind(), lines + panel * tile_rows, tile_rows, layout.head_dim, out + panel * layout.key_panel_stride());
    key_places(*unit.sequence, p.v, unit.kv_head, first, lines);
    pack_across<Math>(p.v.kind(), lines, num_keys, layout.head_dim, layout.panels.rows, layout.value_panel_stride,
                      out + layout.values_begin());
  }

  int64_t queries_floats() const { return layout.score_words * tile_columns; }
  int64_t output_floats() const { return layout.panels.padded_dim() * tile_columns; }
  int64_t tile_floats() const { return queries_floats() + output_floats() + 2 * block_keys * tile_columns; }

  void run_tile(const Unit& unit, int64_t tile, float* memory) const {
    float* queries = memory;
    float* output = queries + queries_floats();
    float* scores = output + output_floats();
    float* weights = Math::per_word == 1 ? scores : scores + block_keys * tile_columns;
    const Columns columns(p, *unit.sequence, unit.kv_head, tile);
    void* lines[tile_columns];
    columns.places(p.q, lines);
    pack_along<Math>(p.q.kind(), lines, tile_columns, layout.head_dim, queries);
    std::memset(output, 0, static_cast<size_t>(output_floats()) * sizeof(float));
    Statistics statistics;
    unrolled<tile_vectors>([&](auto j) {
      statistics.highest[j] = broadcast(-INFINITY);
      statistics.total[j] = vec{};
    });

    const OutputTile add_values = output_tile_of<Math>(layout.panels.rows);
    const float scale = p.scale * 1.44269504f; /* weights are powers of two */
    for (int64_t first = 0; first < columns.most; first += block_keys) {
      const float* keys = unit.packed + first / block_keys * layout.block_stride();
      const float* values = keys + layout.values_begin();
      const int64_t num_keys = min<int64_t>(columns.most - first, block_keys);
      for (int64_t panel = 0; panel * tile_rows < num_keys; panel++)
        score_tile<Math>(layout.score_words, keys + panel * layout.key_panel_stride(), queries, scale,
                         scores + panel * tile_rows * tile_columns);
      if (p.k.has_codes) scale_scores(*unit.sequence, unit.kv_head, first, num_keys, scores);
      if (first + num_keys > columns.least) mask_scores(columns, first, num_keys, -INFINITY, scores);
      vec factor[tile_vectors];
      if (p.v.has_codes) {
        float scales[block_keys];
        for (int64_t s = 0; s < num_keys; s++) scales[s] = p.v.scale(unit.sequence->key_row(first + s), unit.kv_head);
        soften<Math, true>(scores, num_keys, scales, statistics, factor, weights);
      } else {
        soften<Math, false>(scores, num_keys, nullptr, statistics, factor, weights);
      }
      for (int64_t panel = 0; panel < layout.panels.num_panels; panel++)
        add_values(ceil_div(num_keys, Math::per_word), values + panel * layout.value_panel_stride, weights, factor,
                   output + panel * layout.panels.rows * tile_columns);
    }
    finish(columns, statistics, output);
  }

  /* Scores of codes become those of keys. */
  void scale_scores(const Sequence& sequence, int64_t kv_head, int64_t first, int64_t num_keys, float* scores) const {
    for (int64_t s = 0; s < num_keys; s++) {
      const float scale = p.k.scale(sequence.key_row(first + s), kv_head);
      unrolled<tile_vectors>([&](auto j) NT_INLINE {
        float* place = scores + s * tile_columns + j * width;
        store_vec(place, load_vec(place) * scale);
      });
    }
  }

  void finish(const Columns& columns, const Statistics& statistics, const float* output) const {
    vec inverse[tile_vectors];
    unrolled<tile_vectors>([&](auto j) {
      /* A query that sees no key gets zeros. */
      inverse[j] = columns.visible_keys(j) == 0 ? vec{} : 1.0f / statistics.total[j];
    });
    void* lines[tile_columns];
    columns.places(p.o, lines);
    if (p.o.is_wide) store_turned<float>(output, inverse, layout.head_dim, lines, columns.count);
    else store_turned<bf16>(output, inverse, layout.head_dim, lines, columns.count);
    if (p.log_sums == nullptr) return;
    for (int c = 0; c < columns.count; c++) {
      const float highest = statistics.highest[c / width][c % width], total = statistics.total[c / width][c % width];
      p.log_sums[columns.head[c] * p.num_rows + columns.row[c]] = (highest + std::log2(total)) * 0.693147181f;
    }
  }
};

}  // namespace

int32_t run_forward(const Problem& problem, const Sequence* sequences, int64_t num_sequences) {
#if defined(NT_AVX512_BF16)
  if (!problem.q.is_wide && !problem.k.is_wide && !problem.v.is_wide)
    return Forward<Pairs>(problem).run(sequences, num_sequences);
#endif
  return Forward<Singles>(problem).run(sequences, num_sequences);
}

}  // namespace attention

NT_OP(attention_forward) {
  using namespace attention;
  const int32_t status = dispatch_elements({args.q, args.k, args.v, args.o}, [](auto) {});
  if (status != ok) return status;
  if (args.log_sum_exp.data != nullptr && args.log_sum_exp.dtype != f32) return unsupported;
  if (args.cu_seq_lens.data != nullptr && args.cu_seq_lens.dtype != i32) return unsupported;
  const int64_t head_dim = args.head_dim;
  const Problem problem{HeadRows(args.q, args.q_row_stride, head_dim),
                        HeadRows(args.k, args.k_row_stride, head_dim),
                        HeadRows(args.v, args.v_row_stride, head_dim),
                        HeadRows(args.o, args.o_row_stride, head_dim),
                        {args.num_heads, args.num_kv_heads, head_dim},
                        static_cast<float>(args.scale),
                        args.causal != 0,
                        data<float>(args.log_sum_exp),
                        args.num_rows};
  Sequence* sequences = make_sequences(args);
  if (sequences == nullptr) return out_of_memory;
  return run_forward(problem, sequences, args.num_sequences);
}

}  // namespace nt
