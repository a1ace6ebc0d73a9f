/*
 * The paged key/value cache: writing rows into their slots, and causal attention over the blocks of each sequence.
 *
 * Sequences with many query rows go through the tiles of attention_forward.cpp. The others (decoding) are bound by reading the cache,
 * and are computed as dot products straight from where it lies: a task takes a run of neighbouring heads, so that it reads pieces of at least a
 * kilobyte, over a fixed span of keys; the results of the spans are joined afterwards. Nothing depends on the thread count.
 */
#include "attention.h"
#include "vector_math.h"

namespace nt {
namespace attention {
namespace {

/* Query rows times heads per key/value head up to which dot products are the faster way. */
constexpr int64_t most_direct_columns = 16;
constexpr int64_t keys_per_span = 256, bytes_per_piece = 1024;
/* Keys that are scored at a time: the lanes of a vector. */
constexpr int step_keys = width;

/* ---- one step: the dot products of a query with some keys, and the weighted sum of their values ------------------- */

/* The sums of the lanes of x[0], x[1], ... as the lanes of one vector. */
NT_INLINE inline vec sum_lanes(const vec (&x)[step_keys]) {
#if defined(NT_AVX512)
  /* A transposition that adds at every level. */
  vec a[8], b[4];
  unrolled<8>([&](auto i) NT_INLINE {
    a[i] = (vec)_mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]) + (vec)_mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]);
  });
  unrolled<4>([&](auto i) NT_INLINE {
    const __m512d low = (__m512d)a[2 * i], high = (__m512d)a[2 * i + 1];
    b[i] = (vec)_mm512_unpacklo_pd(low, high) + (vec)_mm512_unpackhi_pd(low, high);
  });
  const auto halves = [](vec low, vec high) NT_INLINE {
    return (vec)_mm512_shuffle_f32x4(low, high, 0x88) + (vec)_mm512_shuffle_f32x4(low, high, 0xdd);
  };
  return halves(halves(b[0], b[1]), halves(b[2], b[3]));
#else
  vec result;
  for (int i = 0; i < step_keys; i++) result[i] = sum_of(x[i]);
  return result;
#endif
}

/* The place of a head within the rows of a cache, in elements. */
using ScoreStep = vec (*)(const void* const* rows, int64_t at, const void* query, int64_t head_dim);
using ValueStep = void (*)(const void* const* rows, int64_t at, const float* weights, int64_t head_dim, float* output);

template <class Key>
vec score_step(const void* const* rows, int64_t at, const void* query, int64_t head_dim) {
  const float* q = static_cast<const float*>(query);
  vec sums[step_keys] = {};
  for_vectors(0, head_dim, [&](int64_t i, auto lanes) NT_INLINE {
    const vec own = load_vec(q + i, lanes);
    unrolled<step_keys>([&](auto s) NT_INLINE { sums[s] += own * load_vec(static_cast<const Key*>(rows[s]) + at + i, lanes); });
  });
  return sum_lanes(sums);
}

#if defined(NT_AVX512_BF16)
/* Query and keys in bf16. */
vec score_step_pairs(const void* const* rows, int64_t at, const void* query, int64_t head_dim) {
  const bf16* q = static_cast<const bf16*>(query);
  vec sums[step_keys] = {};
  for (int64_t i = 0; i < head_dim; i += 2 * width) {
    const vec own = words_along<Pairs>(q, i, head_dim);
    unrolled<step_keys>([&](auto s) NT_INLINE {
      sums[s] = Pairs::multiply_add(sums[s], own, words_along<Pairs>(static_cast<const bf16*>(rows[s]) + at, i, head_dim));
    });
  }
  return sum_lanes(sums);
}
#endif

template <class Value, int vectors, class Lanes>
NT_INLINE inline void add_values(const void* const* rows, int64_t at, const float* weights, Lanes lanes, float* output) {
  vec sums[vectors];
  unrolled<vectors>([&](auto j) NT_INLINE { sums[j] = load_vec(output + j * width, lanes); });
  for (int s = 0; s < step_keys; s++) {
    const vec weight = broadcast(weights[s]);
    const Value* row = static_cast<const Value*>(rows[s]) + at;
    unrolled<vectors>([&](auto j) NT_INLINE { sums[j] += weight * load_vec(row + j * width, lanes); });
  }
  unrolled<vectors>([&](auto j) NT_INLINE { store_vec(output + j * width, sums[j], lanes); });
}

template <class Value>
void value_step(const void* const* rows, int64_t at, const float* weights, int64_t head_dim, float* output) {
  constexpr int most = 8;
  int64_t i = 0;
  for (; i + most * width <= head_dim; i += most * width)
    add_values<Value, most>(rows, at + i, weights, all_lanes{}, output + i);
  for_vectors(i, head_dim, [&](int64_t c, auto lanes) NT_INLINE {
    add_values<Value, 1>(rows, at + c, weights, lanes, output + c);
  });
}

/* ---- decoding --------------------------------------------------------------------------------------------------- */

/* The softmax so far of one query of one head: the part over one span of keys, or all of it. Its weighted values follow it. */
struct Partial {
  float highest, total;

  float* output() { return reinterpret_cast<float*>(this) + 16; }
  static int64_t floats(int64_t head_dim) { return 16 + round_up(head_dim, 16); }
};

class Decode {
 public:
  Decode(const Problem& problem, const Sequence* sequences_, int64_t count)
      : p(problem), sequences(sequences_), num_sequences(count) {
    const int64_t head_bytes = max(p.k.head_bytes, p.v.head_bytes);
    heads_per_task = min(p.heads.num_kv_heads, max<int64_t>(1, bytes_per_piece / max<int64_t>(head_bytes, 1)));
    num_head_runs = ceil_div(p.heads.num_kv_heads, heads_per_task);
    add_weighted = p.v.is_wide ? value_step<float> : value_step<bf16>;
    score = p.k.is_wide ? score_step<float> : score_step<bf16>;
#if defined(NT_AVX512_BF16)
    uses_pairs = !p.q.is_wide && !p.k.is_wide;
    if (uses_pairs) score = score_step_pairs;
#endif
  }

  int32_t run() {
    const int64_t num_tasks = plan();
    if (num_tasks < 0) return out_of_memory;
    bool has_failed = false;
    parallel_tasks(num_tasks, [&](int64_t task, int thread) {
      float* queries = static_cast<float*>(scratch(thread, 4 * p.heads.head_dim * most_direct_columns * heads_per_task + 64));
      if (queries == nullptr) has_failed = true;
      else run_span(task, queries);
    });
    if (has_failed) return out_of_memory;
    parallel_for(num_sequences * p.heads.num_heads, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; i++) join(i / p.heads.num_heads, i % p.heads.num_heads);
    });
    return ok;
  }

 private:
  const Problem& p;
  const Sequence* const sequences;
  const int64_t num_sequences;
  int64_t heads_per_task, num_head_runs;
  [[maybe_unused]] bool uses_pairs = false;
  ScoreStep score;
  ValueStep add_weighted;
  /* Per sequence: its first span, and its first partial result; one more entry ends the last. */
  struct Place {
    int64_t span, partial;
  };
  Place* places = nullptr;
  float* partials = nullptr;

  static int64_t num_spans(const Sequence& sequence) { return max<int64_t>(1, ceil_div(sequence.num_keys, keys_per_span)); }

  /* The number of tasks, or -1 without memory. */
  int64_t plan() {
    places = static_cast<Place*>(shared_scratch(0, static_cast<int64_t>(sizeof(Place)) * (num_sequences + 1)));
    if (places == nullptr) return -1;
    Place next{0, 0};
    for (int64_t i = 0; i < num_sequences; i++) {
      places[i] = next;
      next.span += num_spans(sequences[i]);
      next.partial += num_spans(sequences[i]) * sequences[i].num_queries * p.heads.num_heads;
    }
    places[num_sequences] = next;
    partials = static_cast<float*>(shared_scratch(1, 4 * max<int64_t>(next.partial, 1) * Partial::floats(p.heads.head_dim)));
    return partials == nullptr ? -1 : next.span * num_head_runs;
  }

  Partial& partial_at(int64_t sequence, int64_t span, int64_t t, int64_t head) const {
    const Sequence& own = sequences[sequence];
    const int64_t index = places[sequence].partial + (span * own.num_queries + t) * p.heads.num_heads + head;
    return *reinterpret_cast<Partial*>(partials + index * Partial::floats(p.heads.head_dim));
  }

  int64_t sequence_of_span(int64_t span) const {
    int64_t low = 0, high = num_sequences;
    while (high - low > 1) {
      const int64_t middle = (low + high) / 2;
      if (places[middle].span <= span) low = middle;
      else high = middle;
    }
    return low;
  }

  /* The queries of a run of heads as the scoring step wants them, and empty partial results. */
  void start(int64_t index, int64_t span, int64_t first_head, int64_t end_head, float* queries) const {
    const Sequence& sequence = sequences[index];
    for (int64_t head = first_head; head < end_head; head++) {
      for (int64_t t = 0; t < sequence.num_queries; t++) {
        Partial& partial = partial_at(index, span, t, head);
        partial.highest = -INFINITY;
        partial.total = 0;
        std::memset(partial.output(), 0, static_cast<size_t>(p.heads.head_dim) * sizeof(float));
        if (uses_pairs) continue;
        const void* row = p.q.at(sequence.first_query + t, head);
        for_vectors(0, p.heads.head_dim, [&](int64_t i, auto lanes) NT_INLINE {
          store_vec(queries + i, p.q.is_wide ? load_vec(static_cast<const float*>(row) + i, lanes)
                                             : load_vec(static_cast<const bf16*>(row) + i, lanes), lanes);
        });
        queries += p.heads.head_dim;
      }
    }
  }

  void run_span(int64_t task, float* queries) const {
    const int64_t span_index = task / num_head_runs, index = sequence_of_span(span_index);
    const Sequence& sequence = sequences[index];
    const int64_t span = span_index - places[index].span;
    const int64_t first_kv = task % num_head_runs * heads_per_task;
    const int64_t end_kv = min(first_kv + heads_per_task, p.heads.num_kv_heads);
    start(index, span, p.heads.first_head(first_kv), p.heads.first_head(end_kv), queries);
    const int64_t end = min((span + 1) * keys_per_span, sequence.num_keys);
    for (int64_t first = span * keys_per_span; first < end; first += step_keys) {
      const void *keys[step_keys], *values[step_keys];
      for (int64_t s = 0; s < step_keys; s++) {
        const int64_t row = sequence.key_row(min(first + s, end - 1)); /* beyond the last key: masked below */
        keys[s] = p.k.at(row, 0);
        values[s] = p.v.at(row, 0);
      }
      const float* query = queries;
      for (int64_t kv_head = first_kv; kv_head < end_kv; kv_head++) {
        const int64_t first_head = p.heads.first_head(kv_head), end_head = p.heads.first_head(kv_head + 1);
        for (int64_t head = first_head; head < end_head; head++) {
          for (int64_t t = 0; t < sequence.num_queries; t++, query += p.heads.head_dim) {
            const void* own = uses_pairs ? p.q.at(sequence.first_query + t, head) : query;
            const int64_t num_visible = min(end, sequence.num_visible(t, true)) - first;
            if (num_visible > 0)
              run_step({keys, values, kv_head * p.heads.head_dim, own, num_visible}, partial_at(index, span, t, head));
          }
        }
      }
    }
  }

  struct Step {
    const void* const *keys, *const *values;
    int64_t at;
    const void* query;
    int64_t num_visible;
  };

  void run_step(const Step& step, Partial& partial) const {
    const vec raw = score(step.keys, step.at, step.query, p.heads.head_dim) * (p.scale * 1.44269504f);
    const vec scores = lane_numbers() < static_cast<int32_t>(min<int64_t>(step.num_visible, step_keys)) ? raw : broadcast(-INFINITY);
    const float highest = max(partial.highest, max_of(scores));
    float* output = partial.output();
    if (highest > partial.highest) {
      const vec factor = exp2(broadcast(partial.highest - highest));
      partial.highest = highest;
      partial.total *= factor[0];
      for_vectors(0, p.heads.head_dim, [&](int64_t i, auto lanes) NT_INLINE { store_vec(output + i, load_vec(output + i, lanes) * factor, lanes); });
    }
    alignas(64) float weights[step_keys];
    const vec own = exp2(scores - broadcast(highest == -INFINITY ? 0 : highest));
    store_vec(weights, own);
    partial.total += sum_of(own);
    add_weighted(step.values, step.at, weights, p.heads.head_dim, output);
  }

  /* The output rows of one head of a sequence from the parts over its spans. */
  void join(int64_t index, int64_t head) const {
    const Sequence& sequence = sequences[index];
    const int64_t spans = num_spans(sequence), head_dim = p.heads.head_dim;
    for (int64_t t = 0; t < sequence.num_queries; t++) {
      float highest = -INFINITY, total = 0;
      for (int64_t span = 0; span < spans; span++) highest = max(highest, partial_at(index, span, t, head).highest);
      const float centre = highest == -INFINITY ? 0 : highest;
      for (int64_t span = 0; span < spans; span++) {
        const Partial& partial = partial_at(index, span, t, head);
        total += partial.total * exp2(broadcast(partial.highest - centre))[0];
      }
      const bool sees_none = sequence.num_visible(t, true) == 0;
      for_vectors(0, head_dim, [&](int64_t i, auto lanes) NT_INLINE {
        vec sum{};
        for (int64_t span = 0; span < spans; span++) {
          Partial& partial = partial_at(index, span, t, head);
          sum += load_vec(partial.output() + i, lanes) * exp2(broadcast(partial.highest - centre));
        }
        const vec result = sees_none ? vec{} : sum / total;
        void* row = p.o.at(sequence.first_query + t, head);
        if (p.o.is_wide) store_vec(static_cast<float*>(row) + i, result, lanes);
        else store_vec(static_cast<bf16*>(row) + i, result, lanes);
      });
    }
  }
};

/* Copies rows of `source` into the slots of `cache`. */
template <class T>
void write_rows(const nt_kv_cache_write_args& args, const nt_tensor& source, int64_t row_stride, const nt_tensor& cache,
                int64_t begin, int64_t end) {
  const Elements<T> from(source), to(cache);
  const int32_t* slots = data<int32_t>(args.slots);
  const int64_t columns = args.num_kv_heads * args.head_dim;
  for (int64_t row = begin; row < end; row++) {
    if (slots[row] < 0) continue;
    const int64_t place = slots[row] * columns;
    for_vectors(0, columns, [&](int64_t i, auto lanes) NT_INLINE {
      to.store(place + i, from.load(row * row_stride + i, lanes), lanes);
    });
  }
}

}  // namespace
}  // namespace attention

NT_OP(kv_cache_write) {
  if (args.slots.dtype != i32) return unsupported;
  return dispatch_elements({args.k, args.v, args.k_cache, args.v_cache}, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const int64_t grain = max<int64_t>(1, pointwise_grain / max<int64_t>(args.num_kv_heads * args.head_dim, 1));
    parallel_for(args.num_rows, grain, [&](int64_t begin, int64_t end, int) {
      attention::write_rows<T>(args, args.k, args.k_row_stride, args.k_cache, begin, end);
      attention::write_rows<T>(args, args.v, args.v_row_stride, args.v_cache, begin, end);
    });
  });
}

NT_OP(attention_paged) {
  using namespace attention;
  int32_t status = dispatch_elements({args.q, args.k_cache, args.v_cache, args.o}, [](auto) {});
  if (status != ok) return status;
  if (args.block_tables.dtype != i32 || args.context_lengths.dtype != i32 || args.query_starts.dtype != i32) return unsupported;
  const int64_t head_dim = args.head_dim, slot_stride = args.num_kv_heads * head_dim;
  const Problem problem{HeadRows(args.q, args.q_row_stride, head_dim),
                        HeadRows(args.k_cache, slot_stride, head_dim),
                        HeadRows(args.v_cache, slot_stride, head_dim),
                        HeadRows(args.o, args.o_row_stride, head_dim),
                        {args.num_heads, args.num_kv_heads, head_dim},
                        static_cast<float>(args.scale),
                        true,
                        nullptr,
                        0};
  const int64_t bytes = static_cast<int64_t>(sizeof(Sequence)) * max<int64_t>(args.num_sequences, 1);
  Sequence* sequences = static_cast<Sequence*>(shared_scratch(3, bytes));
  if (sequences == nullptr) return out_of_memory;
  const int32_t* starts = data<int32_t>(args.query_starts);
  const int64_t group_size = ceil_div(args.num_heads, max<int64_t>(args.num_kv_heads, 1));
  /* Those to decode from the front, those for tiles from the back. */
  int64_t num_direct = 0, first_tiled = args.num_sequences;
  for (int64_t i = 0; i < args.num_sequences; i++) {
    const int64_t num_queries = starts[i + 1] - starts[i];
    const bool is_direct = num_queries * group_size <= most_direct_columns;
    sequences[is_direct ? num_direct++ : --first_tiled] = {
        starts[i], num_queries, data<int32_t>(args.context_lengths)[i], 0,
        data<int32_t>(args.block_tables) + i * args.max_blocks_per_sequence, args.block_size};
  }
  if (num_direct > 0) status = Decode(problem, sequences, num_direct).run();
  if (status == ok && first_tiled < args.num_sequences)
    status = run_forward(problem, sequences + first_tiled, args.num_sequences - first_tiled);
  return status;
}

}  // namespace nt
