/*
 * Penalties for tokens that occurred, and the draw of the next token.
 *
 * Probabilities are weighed in f64, so that the kept set and the token drawn are those of exact arithmetic but for ties below
 * its rounding. The cuts are found by radix selection on the ordered bits of the logits instead of by sorting. Sums run over blocks of
 * fixed size: results do not depend on the thread count.
 */
#include <algorithm>

#include "philox.h"
#include "vector_math.h"

namespace nt {
namespace {

constexpr int64_t block_tokens = 4096;

/* Numbers in the order of the floats: a larger float has the larger key. */
inline uint32_t key_of(float x) {
  const uint32_t bits = bit_cast<uint32_t>(x + 0.0f); /* -0 and 0 are equal */
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

struct Highest {
  float logit;
  int64_t token; /* the first of equals */
};

Highest find_highest(const float* logits, int64_t vocab_size) {
  Highest best{-INFINITY, 0};
  for (int64_t begin = 0; begin < vocab_size; begin += block_tokens) {
    const int64_t end = min(begin + block_tokens, vocab_size);
    vec top = broadcast(-INFINITY);
    for_vectors(begin, end, [&](int64_t i, auto lanes) NT_INLINE {
      top = max(or_else(load_vec(logits + i, lanes), lanes, -INFINITY), top);
    });
    const float highest = max_of(top);
    if (!(highest > best.logit)) continue;
    best.logit = highest;
    for (best.token = begin; logits[best.token] != highest;) best.token++;
  }
  return best;
}

double log_sum_exp(const float* logits, int64_t vocab_size, float highest) {
  const vec centre = broadcast(highest);
  double total = 0;
  for (int64_t begin = 0; begin < vocab_size; begin += block_tokens) {
    vec sum{};
    for_vectors(begin, min(begin + block_tokens, vocab_size), [&](int64_t i, auto lanes) NT_INLINE {
      sum += exp(or_else(load_vec(logits + i, lanes), lanes, -INFINITY) - centre);
    });
    total += sum_of(sum);
  }
  return highest + std::log(total);
}

/* weights[i] = exp((logits[i] - highest) / temperature) */
void weigh(const float* logits, int64_t vocab_size, float highest, double temperature, double* weights) {
  const dvec centre = broadcast(static_cast<double>(highest)), divisor = broadcast(temperature);
  int64_t i = 0;
  for (; i + double_width <= vocab_size; i += double_width)
    *reinterpret_cast<dvec_anywhere*>(weights + i) = exp((load_doubles(logits + i) - centre) / divisor);
  if (i == vocab_size) return;
  float rest[double_width] = {};
  std::memcpy(rest, logits + i, static_cast<size_t>(vocab_size - i) * sizeof(float));
  const dvec last = exp((load_doubles(rest) - centre) / divisor);
  std::memcpy(weights + i, &last, static_cast<size_t>(vocab_size - i) * sizeof(double));
}

/*
 * The largest key such that tokens with this key or a higher one measure at least `wanted` together; 0 where all of them do
 * not. `measure(i)` is what token i counts for.
 */
template <class Sum, class Measure>
uint32_t select_key(const float* logits, int64_t vocab_size, uint32_t lowest, Sum wanted, const Measure& measure) {
  constexpr int shifts[3] = {21, 10, 0}, bits[3] = {11, 11, 10};
  Sum above = 0, bins[1 << 11];
  uint32_t prefix = 0;
  for (int level = 0; level < 3; level++) {
    const int num_bins = 1 << bits[level];
    std::fill(bins, bins + num_bins, Sum{0});
    const int known = shifts[level] + bits[level]; /* bits from here on up are decided */
    for (int64_t i = 0; i < vocab_size; i++) {
      const uint32_t key = key_of(logits[i]);
      if (key < lowest || static_cast<uint64_t>(key) >> known != static_cast<uint64_t>(prefix) >> known) continue;
      bins[key >> shifts[level] & static_cast<uint32_t>(num_bins - 1)] += measure(i);
    }
    int bin = num_bins - 1;
    while (bin >= 0 && above + bins[bin] < wanted) above += bins[bin--];
    if (bin < 0 && level == 0) return 0;
    /* Parts of a bin can sum to less than the bin by a rounding: then all of it is needed. */
    if (bin < 0) for (bin = 0; bins[bin] == 0;) bin++;
    prefix |= static_cast<uint32_t>(bin) << shifts[level];
  }
  return prefix;
}

double uniform_of(uint64_t seed, uint64_t counter) {
  uvec words[4];
  philox(seed, counter, words);
  return uniform(words[0])[0];
}

struct Draw {
  double temperature, top_p, min_p, uniform;
  int64_t top_k;
};

/* Zeroes the weights of the tokens that the cuts leave out. */
void cut(const float* logits, int64_t vocab_size, const Draw& draw, double* weights) {
  uint32_t lowest = 0;
  if (draw.top_k > 0 && draw.top_k < vocab_size)
    lowest = select_key<int64_t>(logits, vocab_size, 0, draw.top_k, [](int64_t) { return int64_t{1}; });
  if (draw.top_p > 0 && draw.top_p < 1) {
    double total = 0;
    for (int64_t i = 0; i < vocab_size; i++)
      if (key_of(logits[i]) >= lowest) total += weights[i];
    lowest = max(lowest, select_key<double>(logits, vocab_size, lowest, draw.top_p * total, [&](int64_t i) { return weights[i]; }));
  }
  const double least = draw.min_p > 0 ? min(draw.min_p, 1.0) : 0; /* the highest weight is 1 and stays */
  for (int64_t i = 0; i < vocab_size; i++)
    if (key_of(logits[i]) < lowest || weights[i] < least) weights[i] = 0;
}

/* The first token at which the sum of weights, in token order, passes `uniform` times their total; the last kept one if none. */
int64_t walk(const double* weights, int64_t vocab_size, double uniform, double* block_sums) {
  const int64_t num_blocks = ceil_div(vocab_size, block_tokens);
  double total = 0;
  for (int64_t block = 0; block < num_blocks; block++) {
    const int64_t end = min((block + 1) * block_tokens, vocab_size);
    double sum = 0;
    for (int64_t i = block * block_tokens; i < end; i++) sum += weights[i];
    block_sums[block] = sum;
    total += sum;
  }
  const double wanted = uniform * total;
  double reached = 0;
  for (int64_t block = 0; block < num_blocks; block++) {
    if (reached + block_sums[block] <= wanted) {
      reached += block_sums[block];
      continue;
    }
    const int64_t end = min((block + 1) * block_tokens, vocab_size);
    for (int64_t i = block * block_tokens; i < end; i++) {
      reached += weights[i];
      if (weights[i] != 0 && reached > wanted) return i;
    }
  }
  int64_t last = vocab_size - 1;
  while (last > 0 && weights[last] == 0) last--;
  return last;
}

void sample_row(const nt_sample_args& args, int64_t row, double* weights) {
  const float* logits = data<float>(args.logits) + row * args.vocab_size;
  const Draw draw{data<float>(args.temperature)[row], data<float>(args.top_p)[row], data<float>(args.min_p)[row],
                  uniform_of(static_cast<uint64_t>(data<int64_t>(args.seeds)[row]),
                             static_cast<uint64_t>(data<int64_t>(args.counters)[row])),
                  data<int32_t>(args.top_k)[row]};
  const Highest highest = find_highest(logits, args.vocab_size);
  int64_t token = highest.token;
  if (draw.temperature != 0 && draw.top_k != 1) {
    weigh(logits, args.vocab_size, highest.logit, draw.temperature, weights);
    cut(logits, args.vocab_size, draw, weights);
    token = walk(weights, args.vocab_size, draw.uniform, weights + args.vocab_size);
  }
  data<int32_t>(args.tokens)[row] = static_cast<int32_t>(token);
  data<float>(args.logprobs)[row] =
      static_cast<float>(logits[token] - log_sum_exp(logits, args.vocab_size, highest.logit));
}

/* One row: occurrences are counted by sorting a copy of the history. */
void penalise(const nt_apply_penalties_args& args, int64_t row, int32_t* sorted) {
  float* logits = data<float>(args.logits) + row * args.vocab_size;
  const double repetition = data<float>(args.repetition)[row], presence = data<float>(args.presence)[row];
  const double frequency = data<float>(args.frequency)[row];
  const int64_t length = max<int64_t>(min<int64_t>(data<int32_t>(args.history_lengths)[row], args.max_history), 0);
  if (length == 0) return;
  std::memcpy(sorted, data<int32_t>(args.history) + row * args.max_history, static_cast<size_t>(length) * sizeof(int32_t));
  std::sort(sorted, sorted + length);
  for (int64_t i = 0; i < length;) {
    const int32_t token = sorted[i];
    int64_t count = 0;
    for (; i < length && sorted[i] == token; i++) count++;
    if (token < 0 || token >= args.vocab_size) continue;
    const double logit = logits[token], scaled = logit > 0 ? logit / repetition : logit * repetition;
    logits[token] = static_cast<float>(scaled - (presence + frequency * static_cast<double>(count)));
  }
}

bool have_dtype(int64_t dtype, std::initializer_list<nt_tensor> tensors) {
  for (const nt_tensor& tensor : tensors)
    if (tensor.dtype != dtype) return false;
  return true;
}

}  // namespace

NT_OP(apply_penalties) {
  if (!have_dtype(f32, {args.logits, args.repetition, args.presence, args.frequency})) return unsupported;
  if (!have_dtype(i32, {args.history, args.history_lengths})) return unsupported;
  bool has_failed = false;
  parallel_for(args.num_rows, 1, [&](int64_t begin, int64_t end, int thread) {
    int32_t* sorted = static_cast<int32_t*>(scratch(thread, 4 * max<int64_t>(args.max_history, 1)));
    if (sorted == nullptr) has_failed = true;
    else for (int64_t row = begin; row < end; row++) penalise(args, row, sorted);
  });
  return has_failed ? out_of_memory : ok;
}

NT_OP(sample) {
  if (!have_dtype(f32, {args.logits, args.temperature, args.top_p, args.min_p, args.logprobs})) return unsupported;
  if (!have_dtype(i32, {args.top_k, args.tokens}) || !have_dtype(i64, {args.seeds, args.counters})) return unsupported;
  if (args.vocab_size < 1) return bad_argument;
  bool has_failed = false;
  parallel_for(args.num_rows, 1, [&](int64_t begin, int64_t end, int thread) {
    const int64_t num_blocks = ceil_div(args.vocab_size, block_tokens);
    double* weights = static_cast<double*>(scratch(thread, 8 * (args.vocab_size + num_blocks)));
    if (weights == nullptr) has_failed = true;
    else for (int64_t row = begin; row < end; row++) sample_row(args, row, weights);
  });
  return has_failed ? out_of_memory : ok;
}

}  // namespace nt
