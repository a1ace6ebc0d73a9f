// Repetition, presence and frequency penalties: one block per row counts the tokens of its history in a hash table in scratch memory,
// then changes the logit of each token once. Counting with integers makes the result independent of the order of threads.

constexpr int threads = 512;
constexpr int32_t empty = -1;

struct Penalties {
  float* logits;
  const int32_t* history;
  const int32_t* history_lengths;
  const float* repetition;
  const float* presence;
  const float* frequency;
  // (rows, table_size) tokens, then (rows, table_size) counts.
  int32_t* table;
  int64_t vocab_size;
  int num_rows;
  int max_history;
  // A power of two, at least twice max_history.
  int table_size;
};

extern "C" __global__ void __launch_bounds__(threads) apply_penalties(Penalties args) {
  begin_after_previous();
  const int row = blockIdx.x;
  int32_t* tokens = args.table + int64_t(row) * args.table_size;
  int32_t* counts = tokens + int64_t(args.num_rows) * args.table_size;
  const int length = smaller(args.history_lengths[row], args.max_history);
  for (int i = threadIdx.x; i < args.table_size; i += threads) {
    tokens[i] = empty;
    counts[i] = 0;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < length; i += threads) {
    const int32_t token = args.history[int64_t(row) * args.max_history + i];
    if (token < 0 || token >= args.vocab_size) continue;
    uint32_t slot = (static_cast<uint32_t>(token) * 2654435761u) & (args.table_size - 1);
    while (true) {
      const int32_t found = atomicCAS(tokens + slot, empty, token);
      if (found == empty || found == token) break;
      slot = (slot + 1) & (args.table_size - 1);
    }
    atomicAdd(counts + slot, 1);
  }
  __syncthreads();
  const float repetition = args.repetition[row], presence = args.presence[row], frequency = args.frequency[row];
  for (int i = threadIdx.x; i < args.table_size; i += threads) {
    // The table was written by atomics, which bypass the first-level cache.
    const int32_t token = __ldcg(tokens + i);
    if (token == empty) continue;
    float& logit = args.logits[row * args.vocab_size + token];
    const float scaled = logit > 0.0f ? logit / repetition : logit * repetition;
    logit = scaled - (presence + frequency * static_cast<float>(__ldcg(counts + i)));
  }
}
