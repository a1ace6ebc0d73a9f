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
  return bits ^ (static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31) | 0x80000000u);
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

double uniform_of(uint64_t seed, uint64_t counter) {
  uvec words[4];
  philox(seed, counter, words);
  return uniform(words[0])[0];
}

/* Sum of count doubles, in an order of its own. */
double sum_all(const double* x, int64_t count) {
  constexpr int chains = 4;
  dvec sums[chains] = {};
  int64_t i = 0;
  for (; i + chains * double_width <= count; i += chains * double_width)
    unrolled<chains>([&](auto c) NT_INLINE { sums[c] += *reinterpret_cast<const dvec_anywhere*>(x + i + c * double_width); });
  double rest = 0;
  for (; i < count; i++) rest += x[i];
  return sum_of((sums[0] + sums[1]) + (sums[2] + sums[3])) + rest;
}

/*
 * The tokens that may still be drawn, in token order, with their logits and weights. At first these are all tokens, and the logits those
 * of the operator; a cut copies what it keeps.
 */
class Candidates {
 public:
  static int64_t bytes(int64_t vocab_size) { return vocab_size * 16 + 256; }

  Candidates(const float* row, int64_t vocab_size, void* memory)
      : logits(row),
        count(vocab_size),
        weights(static_cast<double*>(memory)),
        kept_logits(reinterpret_cast<float*>(weights + vocab_size)),
        tokens(reinterpret_cast<int32_t*>(kept_logits + vocab_size)) {}

  void keep_top(int64_t top_k) {
    if (top_k > 0 && top_k < count) keep_highest<int64_t>(top_k, [](int64_t) { return int64_t{1}; });
  }

  /* weights[i] = exp((logits[i] - highest) / temperature) */
  void weigh(float highest, double temperature) {
    const dvec centre = broadcast(static_cast<double>(highest)), divisor = broadcast(temperature);
    int64_t i = 0;
    for (; i + double_width <= count; i += double_width)
      *reinterpret_cast<dvec_anywhere*>(weights + i) = exp((load_doubles(logits + i) - centre) / divisor);
    if (i < count) {
      float rest[double_width] = {};
      std::memcpy(rest, logits + i, static_cast<size_t>(count - i) * sizeof(float));
      const dvec last = exp((load_doubles(rest) - centre) / divisor);
      std::memcpy(weights + i, &last, static_cast<size_t>(count - i) * sizeof(double));
    }
    has_weights = true;
  }

  void keep_probable(double top_p, double min_p) {
    if (top_p > 0 && top_p < 1)
      keep_highest<double>(top_p * sum_all(weights, count), [this](int64_t i) { return weights[i]; });
    const double least = min(min_p, 1.0); /* the highest weight is 1 and stays */
    if (min_p > 0) keep([&](int64_t i) { return weights[i] >= least; });
  }

  /*
   * The first token at which the sum of weights passes `uniform` times their total; the last one with any weight if none. `otherwise`
   * where no token was kept: logits without a finite maximum.
   */
  int64_t draw(double uniform, int64_t otherwise) const {
    if (count == 0) return otherwise;
    double total = 0;
    for (int64_t begin = 0; begin < count; begin += block_tokens)
      total += sum_all(weights + begin, min(block_tokens, count - begin));
    const double wanted = uniform * total;
    double reached = 0;
    for (int64_t begin = 0; begin < count; begin += block_tokens) {
      const int64_t end = min(begin + block_tokens, count);
      const double sum = sum_all(weights + begin, end - begin);
      if (reached + sum <= wanted) {
        reached += sum;
        continue;
      }
      for (int64_t i = begin; i < end; i++) {
        reached += weights[i];
        if (weights[i] != 0 && reached > wanted) return token_at(i);
      }
    }
    int64_t last = count - 1;
    while (last > 0 && weights[last] == 0) last--;
    return token_at(last);
  }

 private:
  const float* logits;
  int64_t count;
  double* const weights;
  float* const kept_logits;
  int32_t* const tokens;
  bool has_weights = false;

  int64_t token_at(int64_t i) const { return logits == kept_logits ? tokens[i] : i; }

  template <class IsKept>
  void keep(const IsKept& is_kept) {
    const bool is_first = logits != kept_logits;
    int64_t kept = 0;
    for (int64_t i = 0; i < count; i++) {
      const bool stays = is_kept(i);
      kept_logits[kept] = logits[i];
      tokens[kept] = is_first ? static_cast<int32_t>(i) : tokens[i];
      if (has_weights) weights[kept] = weights[i];
      kept += stays;
    }
    count = kept;
    logits = kept_logits;
  }

  /*
   * Keeps the fewest highest that measure at least `wanted` together, ties with the last of them included; all where these measure less.
   * The threshold is found digit by digit; after the first digit few candidates are left.
   */
  template <class Sum, class Measure>
  void keep_highest(Sum wanted, const Measure& measure) {
    constexpr int shifts[3] = {21, 10, 0}, digit_bits[3] = {11, 11, 10};
    Sum above = 0, bins[1 << 11];
    uint32_t prefix = 0;
    for (int level = 0; level < 3; level++) {
      const int shift = shifts[level], num_bins = 1 << digit_bits[level];
      std::fill(bins, bins + num_bins, Sum{0});
      for (int64_t i = 0; i < count; i++) {
        const uint32_t key = key_of(logits[i]);
        const bool is_open = level == 0 || (key ^ prefix) >> (shift + digit_bits[level]) == 0;
        if (is_open) bins[key >> shift & static_cast<uint32_t>(num_bins - 1)] += measure(i);
      }
      int bin = num_bins - 1;
      while (bin >= 0 && above + bins[bin] < wanted) above += bins[bin--];
      if (bin < 0 && level == 0) return;
      /* Parts of a bin can sum to less than the bin by a rounding: then all of it is needed. */
      if (bin < 0) for (bin = 0; bins[bin] == 0;) bin++;
      prefix |= static_cast<uint32_t>(bin) << shift;
      keep([&](int64_t i) { return key_of(logits[i]) >= prefix; });
    }
  }
};

void sample_row(const nt_sample_args& args, int64_t row, void* memory) {
  const float* logits = data<float>(args.logits) + row * args.vocab_size;
  const double temperature = data<float>(args.temperature)[row];
  const int32_t top_k = data<int32_t>(args.top_k)[row];
  const Highest highest = find_highest(logits, args.vocab_size);
  int64_t token = highest.token;
  if (temperature != 0 && top_k != 1) {
    Candidates candidates(logits, args.vocab_size, memory);
    candidates.keep_top(top_k);
    candidates.weigh(highest.logit, temperature);
    candidates.keep_probable(data<float>(args.top_p)[row], data<float>(args.min_p)[row]);
    token = candidates.draw(uniform_of(static_cast<uint64_t>(data<int64_t>(args.seeds)[row]),
                                       static_cast<uint64_t>(data<int64_t>(args.counters)[row])),
                            highest.token);
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
    if (sorted == nullptr) raise_flag(has_failed);
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
    void* memory = scratch(thread, Candidates::bytes(args.vocab_size));
    if (memory == nullptr) raise_flag(has_failed);
    else for (int64_t row = begin; row < end; row++) sample_row(args, row, memory);
  });
  return has_failed ? out_of_memory : ok;
}

}  // namespace nt
