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
/* Keys per task, and about how many bytes of a row and how many queries a task takes. */
constexpr int64_t keys_per_span = 256, bytes_per_piece = 4096, columns_per_task = 64;
/* Keys that are scored at a time: the lanes of a vector. */
constexpr int step_keys = width;
/* Rows read side by side: few, since each is a stream for the processor to fetch ahead. */
constexpr int strip_rows = 4;
/* Queries that share what is read, as far as the registers go. */
#if defined(NT_AVX512) || defined(NT_NEON)
constexpr int strip_queries = 4;
#else
constexpr int strip_queries = 2;
#endif

/* ---- strips: a few rows of one head with the queries that see it ------------------------------------------------- */

template <class Key>
struct WideKeys {
  using Element = Key;
  using Math = Singles;
  template <class Lanes>
  static NT_INLINE vec key(const Key* row, Lanes lanes) {
    return load_vec(row, lanes);
  }
};
#if defined(NT_AVX512_BF16)
/* Queries and keys in bf16. */
struct PairKeys {
  using Element = bf16;
  using Math = Pairs;
  static NT_INLINE vec key(const bf16* row, all_lanes) { return (vec)_mm512_loadu_si512(row); }
  static NT_INLINE vec key(const bf16* row, some_lanes lanes) {
    return (vec)_mm512_maskz_loadu_epi16((1u << lanes.count) - 1, row);
  }
};
#endif

/* A head's part of the rows of a strip, and the rows that come after it: these are fetched ahead, since blocks lie anywhere. */
struct Strip {
  const void *rows[strip_rows], *next[strip_rows];
  int64_t at, head_dim; /* elements */

  template <class Element>
  NT_INLINE const Element* row(int r, int64_t i) const {
    return static_cast<const Element*>(rows[r]) + at + i;
  }
  template <class Element>
  NT_INLINE void fetch(int r, int64_t i) const {
    __builtin_prefetch(static_cast<const Element*>(next[r]) + at + i, 0, 2);
  }
};

/* Partial dot products of a strip's keys with some queries; those of key r and query c go to partials + (c * step_keys + r) * width. */
template <class Keys, int queries>
void score_strip(const Strip& strip, const float* query, int64_t query_stride, float* partials) {
  constexpr int step = width * Keys::Math::per_word;
  using Element = typename Keys::Element;
  vec sums[queries][strip_rows];
  clear(sums);
  const auto add = [&](int64_t i, auto lanes) NT_INLINE {
    vec keys[strip_rows];
    unrolled<strip_rows>([&](auto r) NT_INLINE { 
      keys[r] = Keys::key(strip.template row<Element>(r, i), lanes);
      strip.template fetch<Element>(r, i);
    });
    unrolled<queries>([&](auto c) NT_INLINE {
      const vec own = load_vec(query + c * query_stride + i / Keys::Math::per_word);
      unrolled<strip_rows>([&](auto r) NT_INLINE { sums[c][r] = Keys::Math::multiply_add(sums[c][r], own, keys[r]); });
    });
  };
  int64_t i = 0;
  for (; i + step <= strip.head_dim; i += step) add(i, all_lanes{});
  if (i < strip.head_dim) add(i, some_lanes{static_cast<int>(strip.head_dim - i)});
  unrolled<queries>([&](auto c) NT_INLINE {
    unrolled<strip_rows>([&](auto r) NT_INLINE { store_vec(partials + (c * step_keys + r) * width, sums[c][r]); });
  });
}

template <class Value, int queries, int vectors, class Lanes>
NT_INLINE inline void add_values(const Strip& strip, int64_t i, Lanes lanes, const float* weights, float* outputs, int64_t output_stride) {
  vec sums[queries][vectors];
  unrolled<queries>([&](auto c) NT_INLINE {
    unrolled<vectors>([&](auto j) NT_INLINE { sums[c][j] = load_vec(outputs + c * output_stride + i + j * width); });
  });
  unrolled<strip_rows>([&](auto r) NT_INLINE {
    vec values[vectors];
    unrolled<vectors>([&](auto j) NT_INLINE {
      values[j] = load_vec(strip.template row<Value>(r, i + j * width), lanes);
      if constexpr (j * width * sizeof(Value) % 64 == 0) strip.template fetch<Value>(r, i + j * width);
    });
    unrolled<queries>([&](auto c) NT_INLINE {
      const vec weight = broadcast(weights[c * step_keys + r]);
      unrolled<vectors>([&](auto j) NT_INLINE { sums[c][j] += weight * values[j]; });
    });
  });
  unrolled<queries>([&](auto c) NT_INLINE {
    unrolled<vectors>([&](auto j) NT_INLINE { store_vec(outputs + c * output_stride + i + j * width, sums[c][j]); });
  });
}

/* outputs of some queries += a strip's values, with weights[c * step_keys + r]. */
template <class Value, int queries>
void value_strip(const Strip& strip, const float* weights, float* outputs, int64_t output_stride) {
  constexpr int vectors = 4;
  int64_t i = 0;
  for (; i + vectors * width <= strip.head_dim; i += vectors * width)
    add_values<Value, queries, vectors>(strip, i, all_lanes{}, weights, outputs, output_stride);
  for_vectors(i, strip.head_dim, [&](int64_t at, auto lanes) NT_INLINE {
    add_values<Value, queries, 1>(strip, at, lanes, weights, outputs, output_stride);
  });
}

using ScoreStrip = void (*)(const Strip& strip, const float* query, int64_t query_stride, float* partials);
using ValueStrip = void (*)(const Strip& strip, const float* weights, float* outputs, int64_t output_stride);

/* By the number of queries less one. */
struct StripTable {
  ScoreStrip score[strip_queries];
  ValueStrip value[strip_queries];

  template <class Keys>
  void set_keys() {
    unrolled<strip_queries>([&](auto i) { score[i] = score_strip<Keys, i + 1>; });
  }
  template <class Value>
  void set_values() {
    unrolled<strip_queries>([&](auto i) { value[i] = value_strip<Value, i + 1>; });
  }
};

/* The sums of the lanes of step_keys vectors, as the lanes of one. */
NT_INLINE inline vec sum_lanes(const float* x) {
#if defined(NT_AVX512)
  /* A transposition that adds at every level. */
  vec a[8], b[4];
  unrolled<8>([&](auto i) NT_INLINE {
    const vec first = load_vec(x + 2 * i * width), second = load_vec(x + (2 * i + 1) * width);
    a[i] = (vec)_mm512_unpacklo_ps(first, second) + (vec)_mm512_unpackhi_ps(first, second);
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
  for (int i = 0; i < step_keys; i++) result[i] = sum_of(load_vec(x + i * width));
  return result;
#endif
}

/* ---- decoding --------------------------------------------------------------------------------------------------- */

/* The softmax over one span of keys, for one query of one head. Its weighted values follow it. */
struct Partial {
  float highest, total;

  float* output() { return reinterpret_cast<float*>(this) + 16; }
  static int64_t floats(int64_t head_dim) { return 16 + round_up(head_dim, 16); }
};

class Decode {
 public:
  Decode(const Problem& problem, const Sequence* sequences_, int64_t count)
      : p(problem), sequences(sequences_), num_sequences(count), padded_dim(round_up(problem.heads.head_dim, 2 * width)) {
    if (p.k.is_wide) strips.set_keys<WideKeys<float>>();
    else if (p.k.has_codes) strips.set_keys<WideKeys<e4m3>>();
    else strips.set_keys<WideKeys<bf16>>();
#if defined(NT_AVX512_BF16)
    uses_pairs = !p.q.is_wide && p.k.kind() == ElementKind::narrow;
    if (uses_pairs) strips.set_keys<PairKeys>();
#endif
    if (p.v.is_wide) strips.set_values<float>();
    else if (p.v.has_codes) strips.set_values<e4m3>();
    else strips.set_values<bf16>();
  }

  int32_t run() {
    const int64_t num_tasks = plan();
    if (num_tasks < 0) return out_of_memory;
    bool has_failed = false;
    parallel_tasks(num_tasks, [&](int64_t task, int thread) {
      if (!run_span(task, thread)) raise_flag(has_failed);
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
  const int64_t num_sequences, padded_dim;
  int64_t heads_per_task = 1, num_head_runs = 0;
  bool uses_pairs = false;
  StripTable strips;
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
    int64_t most_queries = 1;
    for (int64_t i = 0; i < num_sequences; i++) {
      places[i] = next;
      next.span += num_spans(sequences[i]);
      next.partial += num_spans(sequences[i]) * sequences[i].num_queries * p.heads.num_heads;
      most_queries = max(most_queries, sequences[i].num_queries);
    }
    places[num_sequences] = next;
    const int64_t columns_per_head = most_queries * ceil_div(p.heads.num_heads, p.heads.num_kv_heads);
    heads_per_task = min(bytes_per_piece / max(p.k.head_bytes, p.v.head_bytes), columns_per_task / columns_per_head);
    heads_per_task = max<int64_t>(1, min(heads_per_task, p.heads.num_kv_heads));
    num_head_runs = ceil_div(p.heads.num_kv_heads, heads_per_task);
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

  /* A run of heads over a span of keys. Its queries are its columns: query t of head h is (h - first_head) * num_queries + t. */
  struct Span {
    const Sequence& sequence;
    int64_t index, span, first_key, end_key, first_kv, end_kv, first_head, end_head;

    int64_t num_columns() const { return (end_head - first_head) * sequence.num_queries; }
    int64_t head_of(int64_t column) const { return first_head + column / sequence.num_queries; }
    int64_t query_of(int64_t column) const { return column % sequence.num_queries; }
  };
  /* Of one thread; per column. */
  struct Memory {
    float *queries, *outputs; /* padded_dim each; queries hold words */
    float *scores;            /* step_keys partial dot products of `width` lanes */
    float *weights;           /* step_keys */
    float *highest, *total;
  };

  bool run_span(int64_t task, int thread) const {
    const int64_t span_index = task / num_head_runs, index = sequence_of_span(span_index);
    const Sequence& sequence = sequences[index];
    const int64_t span = span_index - places[index].span, first_key = span * keys_per_span;
    const int64_t first_kv = task % num_head_runs * heads_per_task;
    const int64_t end_kv = min(first_kv + heads_per_task, p.heads.num_kv_heads);
    const Span own{sequence, index, span, first_key, min(first_key + keys_per_span, sequence.num_keys),
                   first_kv, end_kv, p.heads.first_head(first_kv), p.heads.first_head(end_kv)};
    const int64_t columns = own.num_columns();
    float* memory = static_cast<float*>(scratch(thread, 4 * columns * (2 * padded_dim + step_keys * (width + 1) + 2) + 64));
    if (memory == nullptr) return false;
    Memory m;
    m.queries = memory;
    m.outputs = m.queries + columns * padded_dim;
    m.scores = m.outputs + columns * padded_dim;
    m.weights = m.scores + columns * step_keys * width;
    m.highest = m.weights + columns * step_keys;
    m.total = m.highest + columns;
    start(own, m);
    for (int64_t first = own.first_key; first < own.end_key; first += step_keys) run_step(own, first, m);
    for (int64_t c = 0; c < columns; c++) {
      Partial& partial = partial_at(index, span, own.query_of(c), own.head_of(c));
      partial.highest = m.highest[c];
      partial.total = m.total[c];
      std::memcpy(partial.output(), m.outputs + c * padded_dim, static_cast<size_t>(p.heads.head_dim) * sizeof(float));
    }
    return true;
  }

  void start(const Span& span, const Memory& m) const {
    const int64_t head_dim = p.heads.head_dim;
    std::memset(m.queries, 0, static_cast<size_t>(2 * span.num_columns() * padded_dim) * sizeof(float));
    for (int64_t c = 0; c < span.num_columns(); c++) {
      m.highest[c] = -INFINITY;
      m.total[c] = 0;
      float* query = m.queries + c * padded_dim;
      const void* row = p.q.at(span.sequence.first_query + span.query_of(c), span.head_of(c));
      if (uses_pairs || p.q.is_wide) {
        std::memcpy(query, row, static_cast<size_t>(p.q.head_bytes));
        continue;
      }
      for_vectors(0, head_dim, [&](int64_t i, auto lanes) NT_INLINE {
        store_vec(query + i, load_vec(static_cast<const bf16*>(row) + i, lanes));
      });
    }
  }

  /* Keys first .. first + step_keys of a span; beyond its last key the last again, which is masked. */
  void run_step(const Span& span, int64_t first, const Memory& m) const {
    const void *keys[step_keys + strip_rows], *values[step_keys + strip_rows];
    int64_t slots[step_keys + strip_rows];
    for (int64_t s = 0; s < step_keys + strip_rows; s++) {
      const int64_t row = span.sequence.key_row(min(first + s, span.end_key - 1));
      slots[s] = row;
      keys[s] = p.k.at(row, 0);
      values[s] = p.v.at(row, 0);
    }
    for_strips(span, keys, [&](const Strip& strip, int first_row, int64_t c, int queries) {
      strips.score[queries - 1](strip, m.queries + c * padded_dim, padded_dim, m.scores + (c * step_keys + first_row) * width);
    });
    for (int64_t c = 0; c < span.num_columns(); c++) {
      const int64_t seen = min(span.end_key, span.sequence.num_visible(span.query_of(c), true)) - first;
      const int64_t kv_head = span.head_of(c) * p.heads.num_kv_heads / p.heads.num_heads;
      soften(c, seen, scales_of(p.k, slots, kv_head), scales_of(p.v, slots, kv_head), m);
    }
    for_strips(span, values, [&](const Strip& strip, int first_row, int64_t c, int queries) {
      strips.value[queries - 1](strip, m.weights + c * step_keys + first_row, m.outputs + c * padded_dim, padded_dim);
    });
  }

  /* Calls body(strip, its first row, first column, number of columns): rows outside, so that they are read from end to end. */
  template <class Body>
  void for_strips(const Span& span, const void* const* rows, const Body& body) const {
    for (int row = 0; row < step_keys; row += strip_rows) {
      Strip strip;
      std::memcpy(strip.rows, rows + row, sizeof(strip.rows));
      std::memcpy(strip.next, rows + row + strip_rows, sizeof(strip.next));
      strip.head_dim = p.heads.head_dim;
      for (int64_t kv_head = span.first_kv; kv_head < span.end_kv; kv_head++) {
        strip.at = kv_head * p.heads.head_dim;
        const int64_t end = (p.heads.first_head(kv_head + 1) - span.first_head) * span.sequence.num_queries;
        for (int64_t c = (p.heads.first_head(kv_head) - span.first_head) * span.sequence.num_queries; c < end; c += strip_queries)
          body(strip, row, c, static_cast<int>(min<int64_t>(end - c, strip_queries)));
      }
    }
  }

  /* What a head's elements in the slots of a step are multiplied by. */
  static vec scales_of(const HeadRows& rows, const int64_t* slots, int64_t kv_head) {
    vec scales = broadcast(1.0f);
    if (rows.has_codes)
      for (int s = 0; s < step_keys; s++) scales[s] = rows.scale(slots[s], kv_head);
    return scales;
  }

  /* The weights of a column's step, of which it sees the first num_visible keys, with the scales of keys and values. */
  void soften(int64_t c, int64_t num_visible, vec key_scales, vec value_scales, const Memory& m) const {
    const int32_t seen = static_cast<int32_t>(max<int64_t>(0, min<int64_t>(num_visible, step_keys)));
    const vec raw = sum_lanes(m.scores + c * step_keys * width) * key_scales * (p.scale * 1.44269504f);
    const vec scores = lane_numbers() < seen ? raw : broadcast(-INFINITY);
    const float before = m.highest[c], highest = max(before, max_of(scores));
    const float centre = highest == -INFINITY ? 0 : highest;
    if (highest > before) {
      const vec factor = exp2(broadcast(before - centre));
      float* output = m.outputs + c * padded_dim;
      for (int64_t i = 0; i < padded_dim; i += width) store_vec(output + i, load_vec(output + i) * factor);
      m.highest[c] = highest;
      m.total[c] *= factor[0];
    }
    const vec weights = exp2(scores - centre);
    store_vec(m.weights + c * step_keys, weights * value_scales);
    m.total[c] += sum_of(weights);
  }

  /* The output rows of one head of a sequence from the parts over its spans. */
  void join(int64_t index, int64_t head) const {
    const Sequence& sequence = sequences[index];
    const int64_t spans = num_spans(sequence);
    for (int64_t t = 0; t < sequence.num_queries; t++) {
      float highest = -INFINITY, total = 0;
      for (int64_t span = 0; span < spans; span++) highest = max(highest, partial_at(index, span, t, head).highest);
      const float centre = highest == -INFINITY ? 0 : highest;
      for (int64_t span = 0; span < spans; span++) {
        Partial& partial = partial_at(index, span, t, head);
        partial.highest = exp2(broadcast(partial.highest - centre))[0]; /* from now on its share */
        total += partial.total * partial.highest;
      }
      const float inverse = sequence.num_visible(t, true) == 0 ? 0 : 1 / total;
      void* row = p.o.at(sequence.first_query + t, head);
      for_vectors(0, p.heads.head_dim, [&](int64_t i, auto lanes) NT_INLINE {
        vec sum{};
        for (int64_t span = 0; span < spans; span++) {
          Partial& partial = partial_at(index, span, t, head);
          sum += load_vec(partial.output() + i, lanes) * partial.highest;
        }
        if (p.o.is_wide) store_vec(static_cast<float*>(row) + i, sum * inverse, lanes);
        else store_vec(static_cast<bf16*>(row) + i, sum * inverse, lanes);
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

/* The same into a cache of codes. */
template <class T>
void write_codes(const nt_kv_cache_write_args& args, const nt_tensor& source, int64_t row_stride, const CodeSlots& cache,
                 int64_t begin, int64_t end, float* heads) {
  const Elements<T> from(source);
  const int32_t* slots = data<int32_t>(args.slots);
  for (int64_t row = begin; row < end; row++) {
    if (slots[row] < 0) continue;
    for_vectors(0, args.num_kv_heads * args.head_dim, [&](int64_t i, auto lanes) NT_INLINE {
      store_vec(heads + i, from.load(row * row_stride + i, lanes), lanes);
    });
    cache.store(slots[row], heads);
  }
}

}  // namespace
}  // namespace attention

NT_OP(kv_cache_write) {
  if (args.slots.dtype != i32) return unsupported;
  const int32_t status = check_caches(args);
  if (status != ok) return status;
  if (args.k_cache.dtype == u8) {
    bool has_failed = false;
    const int32_t written = dispatch_elements({args.k, args.v}, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const int64_t columns = args.num_kv_heads * args.head_dim;
      parallel_for(args.num_rows, max<int64_t>(1, pointwise_grain / max<int64_t>(columns, 1)), [&](int64_t begin, int64_t end, int thread) {
        float* heads = static_cast<float*>(scratch(thread, 4 * max<int64_t>(columns, 1)));
        if (heads == nullptr) {
          raise_flag(has_failed);
          return;
        }
        attention::write_codes<T>(args, args.k, args.k_row_stride, key_codes(args), begin, end, heads);
        attention::write_codes<T>(args, args.v, args.v_row_stride, value_codes(args), begin, end, heads);
      });
    });
    return has_failed ? out_of_memory : written;
  }
  return dispatch_elements({args.k, args.v, args.k_cache, args.v_cache}, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const int64_t grain = max<int64_t>(1, pointwise_grain / max<int64_t>(args.num_kv_heads * args.head_dim, 1));
    parallel_for(args.num_rows, grain, [&](int64_t begin, int64_t end, int) {
      attention::write_rows<T>(args, args.k, args.k_row_stride, args.k_cache, begin, end);
      attention::write_rows<T>(args, args.v, args.v_row_stride, args.v_cache, begin, end);
    });
  });
}

/* Slots lie scattered: one after the other, keys and values by turns. */
NT_OP(kv_cache_copy) {
  if (args.sources.dtype != i32 || args.slots.dtype != i32 || args.k_cache.dtype != args.v_cache.dtype) return unsupported;
  const int32_t status = check_caches(args);
  if (status != ok) return status;
  const int64_t dtype = args.k_cache.dtype;
  if (dtype != f32 && dtype != bf16_code && dtype != u8) return unsupported;
  const int64_t slot_bytes = args.num_kv_heads * args.head_dim * (dtype == f32 ? 4 : dtype == u8 ? 1 : 2);
  const int32_t *sources = data<int32_t>(args.sources), *slots = data<int32_t>(args.slots);
  parallel_for(args.num_rows, max<int64_t>(1, 4 * pointwise_grain / max<int64_t>(slot_bytes, 1)), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; row++) {
      const int64_t from = sources[row], to = slots[row];
      for (const nt_tensor& cache : {args.k_cache, args.v_cache})
        std::memcpy(data<char>(cache) + to * slot_bytes, data<char>(cache) + from * slot_bytes, static_cast<size_t>(slot_bytes));
      for (const nt_tensor& tensor : {args.k_scales, args.v_scales}) {
        float* scales = data<float>(tensor);
        if (scales == nullptr) continue;
        for (int64_t g = 0; g < args.num_kv_heads; g++) scales[g * args.num_slots + to] = scales[g * args.num_slots + from];
      }
    }
  });
  return ok;
}

NT_OP(attention_paged) {
  using namespace attention;
  int32_t status = check_caches(args);
  if (status != ok) return status;
  const bool has_codes = args.k_cache.dtype == u8;
  status = has_codes ? dispatch_elements({args.q, args.o}, [](auto) {})
                     : dispatch_elements({args.q, args.k_cache, args.v_cache, args.o}, [](auto) {});
  if (status != ok) return status;
  if (args.block_tables.dtype != i32 || args.context_lengths.dtype != i32 || args.query_starts.dtype != i32) return unsupported;
  const int64_t head_dim = args.head_dim, slot_stride = args.num_kv_heads * head_dim;
  HeadRows keys(args.k_cache, slot_stride, head_dim), values(args.v_cache, slot_stride, head_dim);
  keys.scales = data<float>(args.k_scales);
  values.scales = data<float>(args.v_scales);
  keys.num_rows = values.num_rows = args.num_slots;
  const Problem problem{HeadRows(args.q, args.q_row_stride, head_dim),
                        keys,
                        values,
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
