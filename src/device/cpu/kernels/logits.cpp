/*
 * What stands between the logits and the draw, and log-probabilities of given tokens. Sums run over blocks of fixed size: results do
 * not depend on the thread count.
 */
#include <algorithm>

#include "vector_math.h"

namespace nt {
namespace {

constexpr int64_t block_tokens = 4096;
constexpr int64_t most_top = 128;

float highest_of(const float* logits, int64_t vocab_size) {
  vec top = broadcast(-INFINITY);
  for_vectors(0, vocab_size, [&](int64_t i, auto lanes) NT_INLINE {
    top = max(or_else(load_vec(logits + i, lanes), lanes, -INFINITY), top);
  });
  return max_of(top);
}

double log_sum_exp(const float* logits, int64_t vocab_size) {
  const float highest = highest_of(logits, vocab_size);
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

/* A token goes before another by its logit, equal ones by number. */
struct Entry {
  float logit;
  int32_t token;
  bool operator<(const Entry& other) const { return logit > other.logit || (logit == other.logit && token < other.token); }
};

/* The first `count` entries of the row in order, into `top`. */
void find_top(const float* logits, int64_t vocab_size, int64_t count, Entry* top) {
  int64_t size = 0;
  for (int64_t token = 0; token < vocab_size; token++) {
    /* Later tokens lose against equal ones, so what does not exceed the last one is out. */
    if (size == count && !(logits[token] > top[size - 1].logit)) continue;
    const Entry entry{logits[token], static_cast<int32_t>(token)};
    int64_t place = size < count ? size++ : size - 1;
    for (; place > 0 && entry < top[place - 1]; place--) top[place] = top[place - 1];
    top[place] = entry;
  }
}

void measure_row(const nt_token_logprobs_args& args, int64_t row) {
  const float* logits = data<float>(args.logits) + row * args.vocab_size;
  const int32_t token = data<int32_t>(args.tokens)[row];
  const float score = logits[token];
  const double total = log_sum_exp(logits, args.vocab_size);
  int32_t rank = 0;
  for (int64_t i = 0; i < token; i++) rank += logits[i] >= score;
  for (int64_t i = token + 1; i < args.vocab_size; i++) rank += logits[i] > score;
  data<float>(args.logprobs)[row] = static_cast<float>(score - total);
  data<int32_t>(args.ranks)[row] = rank;
  if (args.num_top == 0) return;
  Entry top[most_top];
  const int64_t found = min(args.num_top, args.vocab_size);
  find_top(logits, args.vocab_size, found, top);
  int32_t* top_tokens = data<int32_t>(args.top_tokens) + row * args.num_top;
  float* top_logprobs = data<float>(args.top_logprobs) + row * args.num_top;
  for (int64_t i = 0; i < args.num_top; i++) {
    top_tokens[i] = i < found ? top[i].token : -1;
    top_logprobs[i] = i < found ? static_cast<float>(top[i].logit - total) : -INFINITY;
  }
}

bool have_dtype(int64_t dtype, std::initializer_list<nt_tensor> tensors) {
  for (const nt_tensor& tensor : tensors)
    if (tensor.dtype != dtype) return false;
  return true;
}

}  // namespace

NT_OP(gather_tokens) {
  if (!have_dtype(i32, {args.sources, args.drawn, args.known, args.tokens})) return unsupported;
  const int32_t *sources = data<int32_t>(args.sources), *drawn = data<int32_t>(args.drawn), *known = data<int32_t>(args.known);
  for (int64_t row = 0; row < args.num_rows; row++) {
    if (sources[row] >= args.num_drawn) return bad_argument;
    data<int32_t>(args.tokens)[row] = sources[row] >= 0 ? drawn[sources[row]] : known[row];
  }
  return ok;
}

NT_OP(bias_logits) {
  if (!have_dtype(f32, {args.logits, args.biases}) || !have_dtype(i32, {args.tokens, args.entry_lengths})) return unsupported;
  for (int64_t row = 0; row < args.num_rows; row++) {
    float* logits = data<float>(args.logits) + row * args.vocab_size;
    const int64_t first = row * args.max_entries;
    for (int64_t i = first; i < first + data<int32_t>(args.entry_lengths)[row]; i++) {
      const int32_t token = data<int32_t>(args.tokens)[i];
      if (token < 0 || token >= args.vocab_size) return bad_argument;
      logits[token] += data<float>(args.biases)[i];
    }
  }
  return ok;
}

NT_OP(mask_logits) {
  if (!have_dtype(f32, {args.logits}) || !have_dtype(i32, {args.rows, args.allowed})) return unsupported;
  const int64_t num_words = ceil_div(args.vocab_size, 32);
  parallel_for(args.num_masks, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t mask = begin; mask < end; mask++) {
      float* logits = data<float>(args.logits) + data<int32_t>(args.rows)[mask] * args.vocab_size;
      const uint32_t* words = data<uint32_t>(args.allowed) + mask * num_words;
      for (int64_t word = 0; word < num_words; word++) {
        if (words[word] == 0xffffffffu) continue;
        const int64_t first = word * 32, last = min(first + 32, args.vocab_size);
        for (int64_t token = first; token < last; token++)
          if ((words[word] >> (token - first) & 1) == 0) logits[token] = -INFINITY;
      }
    }
  });
  return ok;
}

NT_OP(token_logprobs) {
  if (!have_dtype(f32, {args.logits, args.logprobs}) || !have_dtype(i32, {args.tokens, args.ranks})) return unsupported;
  if (args.num_top < 0 || args.num_top > most_top) return bad_argument;
  if (args.num_top > 0) {
    if (args.top_tokens.data == nullptr || args.top_logprobs.data == nullptr) return bad_argument;
    if (!have_dtype(i32, {args.top_tokens}) || !have_dtype(f32, {args.top_logprobs})) return unsupported;
  }
  for (int64_t row = 0; row < args.num_rows; row++)
    if (const int32_t token = data<int32_t>(args.tokens)[row]; token < 0 || token >= args.vocab_size) return bad_argument;
  parallel_for(args.num_rows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; row++) measure_row(args, row);
  });
  return ok;
}

}  // namespace nt
