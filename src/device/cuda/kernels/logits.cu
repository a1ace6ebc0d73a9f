// What stands between the logits and the draw, and log-probabilities of given tokens.

extern "C" __global__ void gather_tokens(const int32_t* sources, const int32_t* drawn, const int32_t* known, int32_t* tokens,
                                         int num_rows) {
  begin_after_previous();
  const int row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row < num_rows) tokens[row] = sources[row] >= 0 ? drawn[sources[row]] : known[row];
}

// One block per row; the tokens of a row differ, so no two threads meet.
extern "C" __global__ void bias_logits(float* logits, const int32_t* tokens, const float* biases,
                                       const int32_t* entry_lengths, int64_t vocab_size, int max_entries) {
  begin_after_previous();
  const int row = blockIdx.x;
  float* scores = logits + int64_t(row) * vocab_size;
  const int64_t first = int64_t(row) * max_entries;
  for (int i = threadIdx.x; i < entry_lengths[row]; i += blockDim.x) {
    const int32_t token = tokens[first + i];
    if (token >= 0 && token < vocab_size) scores[token] += biases[first + i];
  }
}

// Grid (parts, masks): a warp takes a word, a lane one of its bits, so that only masked logits are written, side by side.
extern "C" __global__ void mask_logits(float* logits, const int32_t* rows, const uint32_t* allowed, int64_t vocab_size) {
  begin_after_previous();
  const int64_t num_words = ceil_div<int64_t>(vocab_size, 32);
  float* scores = logits + int64_t(rows[blockIdx.y]) * vocab_size;
  const uint32_t* words = allowed + blockIdx.y * num_words;
  const int lane = threadIdx.x & 31, warps = blockDim.x >> 5;
  const int64_t first = int64_t(blockIdx.x) * warps + (threadIdx.x >> 5);
  for (int64_t word = first; word < num_words; word += int64_t(gridDim.x) * warps) {
    const int64_t token = word * 32 + lane;
    if (token < vocab_size && (words[word] >> lane & 1u) == 0u) scores[token] = -infinity;
  }
}

constexpr int logprob_threads = 1024;

// Where a token stands among all: a higher logit first, of equal ones the lower number.
struct Place {
  float logit;
  int token;
};
__device__ __forceinline__ bool goes_before(Place a, Place b) {
  return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

__device__ __forceinline__ Place block_first(Place own, Place (&scratch)[32]) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) {
    const Place other = {__shfl_xor_sync(full_mask, own.logit, offset), __shfl_xor_sync(full_mask, own.token, offset)};
    if (goes_before(other, own)) own = other;
  }
  if ((threadIdx.x & 31) == 0) scratch[threadIdx.x >> 5] = own;
  __syncthreads();
  own = (threadIdx.x & 31) < (blockDim.x >> 5) ? scratch[threadIdx.x & 31] : Place{-infinity, 0x7fffffff};
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) {
    const Place other = {__shfl_xor_sync(full_mask, own.logit, offset), __shfl_xor_sync(full_mask, own.token, offset)};
    if (goes_before(other, own)) own = other;
  }
  __syncthreads();
  return own;
}

// One block per row. The most likely tokens come one by one, each the first after the one before: a pass over the row, which lies in the
// second-level cache by then. Few are asked for, and seldom.
extern "C" __global__ void __launch_bounds__(logprob_threads)
    token_logprobs(const float* logits, const int32_t* tokens, float* logprobs, int32_t* ranks, int32_t* top_tokens,
                   float* top_logprobs, int vocab_size, int num_top) {
  begin_after_previous();
  __shared__ float scratch[32];
  __shared__ int counts[32];
  __shared__ Place places[32];
  const int row = blockIdx.x;
  const float* scores = logits + int64_t(row) * vocab_size;
  const int token = tokens[row];
  const Place own = {token >= 0 && token < vocab_size ? scores[token] : not_a_number, token};
  float high = -infinity;
  int rank = 0;
  for (int i = threadIdx.x; i < vocab_size; i += logprob_threads) {
    high = max_nan(high, scores[i]);
    rank += goes_before({scores[i], i}, own);
  }
  high = block_max(high, scratch);
  rank = block_sum(rank, counts);
  float sum = 0.0f;
  for (int i = threadIdx.x; i < vocab_size; i += logprob_threads) sum += expf(scores[i] - high);
  const float total = high + logf(block_sum(sum, scratch));
  if (threadIdx.x == 0) {
    logprobs[row] = own.logit - total;
    ranks[row] = rank;
  }
  Place last = {infinity, -1};
  for (int i = 0; i < num_top; i++) {
    Place next = {-infinity, 0x7fffffff};
    for (int t = threadIdx.x; t < vocab_size; t += logprob_threads) {
      const Place candidate = {scores[t], t};
      if (goes_before(last, candidate) && goes_before(candidate, next)) next = candidate;
    }
    last = block_first(next, places);
    if (threadIdx.x == 0) {
      const bool is_there = i < vocab_size;
      top_tokens[int64_t(row) * num_top + i] = is_there ? last.token : -1;
      top_logprobs[int64_t(row) * num_top + i] = is_there ? last.logit - total : -infinity;
    }
  }
}
