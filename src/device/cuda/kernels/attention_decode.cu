// Attention of single query rows over a paged cache, bound by reading the keys and values once. A block owns one sequence, one key/value
// head with up to GROUP of its query heads, and one share ("split") of the context; the last block to store its part of several
// splits adds them up. How many splits a sequence really uses hangs on its length, which is read on the device, so a
// captured graph serves any length up to its maxima.
// Defines: T (type of q, cache and o), HEAD_DIM (a padded head size: 64, 128, 256), THREADS of a block, UNROLL (keys per lane and step),
// MIN_BLOCKS_1, _2 and _4 per multiprocessor, by query heads. Source: Dao et al., "Flash-Decoding", 2023.

struct Decode {
  const T* q;
  const T* k_cache;
  const T* v_cache;
  const int32_t* block_tables;
  const int32_t* context_lengths;
  const int32_t* query_starts;
  T* o;
  // (sequences, H, splits, D) and (sequences, H, splits, 2), where there is more than one split.
  float* partial_outputs;
  float* partial_sums;
  int64_t q_row_stride;
  int64_t o_row_stride;
  int num_heads;
  int num_kv_heads;
  int head_dim;
  int block_size;
  // log2 of block_size, or -1.
  int block_shift;
  int max_blocks;
  int num_splits;
  // Tokens below which a further split does not pay.
  int min_split_tokens;
  // scale * log2 e
  float scale_log2;
};

constexpr int threads = THREADS;
constexpr int num_warps = threads / 32;
constexpr int count = Pack<T>::count;
constexpr int packs_per_head = HEAD_DIM / count;
// Lanes that share a key, and packs of a key per lane.
constexpr int lanes_per_key = packs_per_head < 32 ? packs_per_head : 32;
constexpr int packs_per_lane = packs_per_head / lanes_per_key;
constexpr int keys_per_warp = 32 / lanes_per_key;
// Keys per lane and step; the next step's are under way while those of this one are worked on. Fewer where several heads need registers.
template <int group>
constexpr int unroll_for = larger(1, (group == 1 ? UNROLL : UNROLL / 2) / packs_per_lane);
// Entries of the block table looked up at a time.
constexpr int chunk_blocks = threads;

// The share of the context that is this split's, [start, end).
struct Share {
  int start;
  int end;
  int num_splits;
};
__device__ __forceinline__ Share share_of(const Decode& args, int context, int split) {
  const int used = larger(1, smaller(args.num_splits, ceil_div(context, args.min_split_tokens)));
  const int tokens = ceil_div(ceil_div(context, used), 16) * 16;
  return {smaller(context, split * tokens), smaller(context, (split + 1) * tokens), ceil_div(context, larger(tokens, 1))};
}

// A running softmax over some keys: output scaled by 2^-high.
template <int group>
struct State {
  float high[group];
  float sum[group];
  float output[group][packs_per_lane * count];
};

template <int group>
__device__ __forceinline__ void merge(State<group>& own, int h, float high, float sum, const float* output) {
  const float top = fmaxf(own.high[h], high);
  const float own_factor = own.high[h] == -infinity ? 0.0f : exp2f(own.high[h] - top);
  const float factor = high == -infinity ? 0.0f : exp2f(high - top);
  own.high[h] = top;
  own.sum[h] = own.sum[h] * own_factor + sum * factor;
#pragma unroll
  for (int i = 0; i < packs_per_lane * count; i++) own.output[h][i] = own.output[h][i] * own_factor + output[i] * factor;
}

// What one step reads: keys and values of `unroll` keys per lane.
template <int unroll>
struct Step {
  Pack<T> keys[unroll][packs_per_lane];
  Pack<T> values[unroll][packs_per_lane];
  bool is_key[unroll];
};

// Where this block's keys lie: entries of the table in shared memory, of the tokens from `begin` on.
struct Keys {
  const T* k_head;
  const T* v_head;
  const int* blocks;
  int64_t slot_stride;
  int first_block;
};

// Starts the reads of the keys from token `first` on that are before `end`.
template <int unroll>
__device__ __forceinline__ void read_step(const Decode& args, const Keys& from, Step<unroll>& step, int first, int end) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int sub = lane / lanes_per_key, sub_lane = lane % lanes_per_key;
#pragma unroll
  for (int u = 0; u < unroll; u++) {
    const int token = first + (u * num_warps + warp) * keys_per_warp + sub;
    step.is_key[u] = token < end;
    int64_t at = 0;
    if (step.is_key[u]) {
      const int block = args.block_shift >= 0 ? token >> args.block_shift : token / args.block_size;
      const int slot = from.blocks[block - from.first_block] * args.block_size + (token - block * args.block_size);
      at = slot * from.slot_stride;
    }
#pragma unroll
    for (int p = 0; p < packs_per_lane; p++) {
      const int dim = (sub_lane + p * lanes_per_key) * count;
      const bool is_inside = step.is_key[u] && dim < args.head_dim;
      step.keys[u][p] = is_inside ? load_pack_streaming(from.k_head + at + dim) : Pack<T>{};
      step.values[u][p] = is_inside ? load_pack_streaming(from.v_head + at + dim) : Pack<T>{};
    }
  }
}

// Takes a step's keys and values into the running softmax.
template <int group, int unroll>
__device__ __forceinline__ void attend(
    State<group>& state, const Step<unroll>& step, const float (&q)[group][packs_per_lane * count]) {
  float scores[group][unroll];
#pragma unroll
  for (int u = 0; u < unroll; u++) {
#pragma unroll
    for (int h = 0; h < group; h++) scores[h][u] = 0.0f;
#pragma unroll
    for (int p = 0; p < packs_per_lane; p++) {
      float key[count];
      unpack(step.keys[u][p], key);
#pragma unroll
      for (int h = 0; h < group; h++) {
#pragma unroll
        for (int i = 0; i < count; i++) scores[h][u] += q[h][p * count + i] * key[i];
      }
    }
#pragma unroll
    for (int h = 0; h < group; h++) {
#pragma unroll
      for (int offset = lanes_per_key / 2; offset > 0; offset >>= 1)
        scores[h][u] += __shfl_xor_sync(full_mask, scores[h][u], offset);
      if (!step.is_key[u]) scores[h][u] = -infinity;
    }
  }
#pragma unroll
  for (int h = 0; h < group; h++) {
    float high = state.high[h];
#pragma unroll
    for (int u = 0; u < unroll; u++) high = fmaxf(high, scores[h][u]);
    const float base_high = high == -infinity ? 0.0f : high;
    const float factor = fast_exp2(state.high[h] - base_high);
    state.high[h] = high;
    state.sum[h] *= factor;
#pragma unroll
    for (int i = 0; i < packs_per_lane * count; i++) state.output[h][i] *= factor;
#pragma unroll
    for (int u = 0; u < unroll; u++) {
      scores[h][u] = fast_exp2(scores[h][u] - base_high);
      state.sum[h] += scores[h][u];
    }
  }
#pragma unroll
  for (int u = 0; u < unroll; u++) {
#pragma unroll
    for (int p = 0; p < packs_per_lane; p++) {
      float value[count];
      unpack(step.values[u][p], value);
#pragma unroll
      for (int h = 0; h < group; h++) {
#pragma unroll
        for (int i = 0; i < count; i++) state.output[h][p * count + i] += scores[h][u] * value[i];
      }
    }
  }
}

// Splits that have stored their part, per sequence and block of heads; zero again at the end of every launch.
__device__ uint32_t arrivals[4096];

// Whether this block is the last of its sequence and heads to store its part, and may read the others'.
__device__ __forceinline__ bool is_last_to_arrive(int num_splits) {
  __shared__ bool is_last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    uint32_t* counter = arrivals + blockIdx.z * gridDim.y + blockIdx.y;
    is_last = atomicAdd(counter, 1u) == uint32_t(num_splits - 1);
    if (is_last) *counter = 0;
    __threadfence();
  }
  __syncthreads();
  return is_last;
}

// Heads of one query row whose splits are to be added up.
struct Parts {
  int sequence;
  int query_row;
  int first_head;
  int num_heads;
  int num_splits;
};

// In the order of the splits, whichever came last: results do not vary.
__device__ __forceinline__ void combine(const Decode& args, const Parts& parts) {
  for (int i = threadIdx.x; i < parts.num_heads * args.head_dim; i += threads) {
    const int head = parts.first_head + i / args.head_dim, dim = i % args.head_dim;
    const int64_t first = (int64_t(parts.sequence) * args.num_heads + head) * args.num_splits;
    // Written by other blocks of this launch: not to be taken from the first-level cache.
    const volatile float* sums = args.partial_sums + first * 2;
    const volatile float* outputs = args.partial_outputs + first * args.head_dim + dim;
    float top = -infinity;
    for (int split = 0; split < parts.num_splits; split++) top = fmaxf(top, sums[split * 2]);
    float sum = 0.0f, output = 0.0f;
    for (int split = 0; split < parts.num_splits; split++) {
      const float high = sums[split * 2];
      const float factor = high == -infinity ? 0.0f : exp2f(high - top);
      sum += sums[split * 2 + 1] * factor;
      output += outputs[int64_t(split) * args.head_dim] * factor;
    }
    args.o[parts.query_row * args.o_row_stride + int64_t(head) * args.head_dim + dim] = from_float<T>(output / sum);
  }
}

template <int group>
__device__ __forceinline__ void decode(const Decode& args) {
  constexpr int unroll = unroll_for<group>;
  constexpr int keys_per_step = num_warps * keys_per_warp * unroll;
  __shared__ int blocks[chunk_blocks];
  __shared__ float merged[num_warps][HEAD_DIM + 2];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int sub_lane = lane % lanes_per_key;
  const int sequence = blockIdx.z, split = blockIdx.x;
  const int32_t* table = args.block_tables + int64_t(sequence) * args.max_blocks;
  // Loaded together: one waiting for memory instead of three.
  const int early_block = args.num_splits == 1 ? table[smaller(int(threadIdx.x), args.max_blocks - 1)] : 0;
  const int query_row = args.query_starts[sequence], next_query_row = args.query_starts[sequence + 1];
  const int context = args.context_lengths[sequence];
  // Rows of longer queries are the tiled kernel's.
  if (next_query_row - query_row != 1) return;
  const Share share = share_of(args, context, split);
  if (split >= larger(1, share.num_splits)) return;

  const int heads_per_kv_head = args.num_heads / args.num_kv_heads;
  const int chunks_of_group = ceil_div(heads_per_kv_head, group);
  const int kv_head = blockIdx.y / chunks_of_group;
  const int first_head = kv_head * heads_per_kv_head + blockIdx.y % chunks_of_group * group;
  const int num_group_heads = smaller(group, (kv_head + 1) * heads_per_kv_head - first_head);

  Pack<T> q_packs[group][packs_per_lane];
#pragma unroll
  for (int p = 0; p < packs_per_lane; p++) {
    const int dim = (sub_lane + p * lanes_per_key) * count;
#pragma unroll
    for (int h = 0; h < group; h++) {
      q_packs[h][p] = Pack<T>{};
      if (dim < args.head_dim && h < num_group_heads)
        q_packs[h][p] = load_pack(args.q + query_row * args.q_row_stride + int64_t(first_head + h) * args.head_dim + dim);
    }
  }

  State<group> state;
#pragma unroll
  for (int h = 0; h < group; h++) {
    state.high[h] = -infinity;
    state.sum[h] = 0.0f;
#pragma unroll
    for (int i = 0; i < packs_per_lane * count; i++) state.output[h][i] = 0.0f;
  }
  float q[group][packs_per_lane * count];
  Keys from;
  from.k_head = args.k_cache + int64_t(kv_head) * args.head_dim;
  from.v_head = args.v_cache + int64_t(kv_head) * args.head_dim;
  from.blocks = blocks;
  from.slot_stride = int64_t(args.num_kv_heads) * args.head_dim;

  bool has_q = false;
  for (int base = share.start; base < share.end;) {
    from.first_block = args.block_shift >= 0 ? base >> args.block_shift : base / args.block_size;
    const int end = smaller(share.end, (from.first_block + chunk_blocks) * args.block_size);
    const int block = from.first_block + threadIdx.x;
    const bool is_early = args.num_splits == 1 && from.first_block == 0;
    __syncthreads();
    blocks[threadIdx.x] = is_early ? early_block : table[smaller(block, args.max_blocks - 1)];
    __syncthreads();
    Step<unroll> even, odd;
    read_step(args, from, even, base, end);
    if (!has_q) {
      has_q = true;
#pragma unroll
      for (int h = 0; h < group; h++) {
#pragma unroll
        for (int p = 0; p < packs_per_lane; p++) {
          float values[count];
          unpack(q_packs[h][p], values);
#pragma unroll
          for (int i = 0; i < count; i++) q[h][p * count + i] = values[i] * args.scale_log2;
        }
      }
    }
    for (int step = base; step < end; step += 2 * keys_per_step) {
      read_step(args, from, odd, step + keys_per_step, end);
      attend<group, unroll>(state, even, q);
      if (step + keys_per_step >= end) break;
      read_step(args, from, even, step + 2 * keys_per_step, end);
      attend<group, unroll>(state, odd, q);
    }
    base = end;
  }

  const bool is_final = args.num_splits == 1 || share.num_splits <= 1;
#pragma unroll
  for (int h = 0; h < group; h++) {
    // Lanes of the same components in the warp, then the warps.
#pragma unroll
    for (int offset = lanes_per_key; offset < 32; offset <<= 1) {
      float other[packs_per_lane * count];
      const float high = __shfl_xor_sync(full_mask, state.high[h], offset);
      const float sum = __shfl_xor_sync(full_mask, state.sum[h], offset);
#pragma unroll
      for (int i = 0; i < packs_per_lane * count; i++) other[i] = __shfl_xor_sync(full_mask, state.output[h][i], offset);
      merge(state, h, high, sum, other);
    }
    __syncthreads();
    if (lane < lanes_per_key) {
#pragma unroll
      for (int p = 0; p < packs_per_lane; p++) {
#pragma unroll
        for (int i = 0; i < count; i++)
          merged[warp][(lane + p * lanes_per_key) * count + i] = state.output[h][p * count + i];
      }
      if (lane == 0) {
        merged[warp][HEAD_DIM] = state.high[h];
        merged[warp][HEAD_DIM + 1] = state.sum[h];
      }
    }
    __syncthreads();
    if (h >= num_group_heads) continue;
    float top = -infinity, sum = 0.0f, factors[num_warps];
#pragma unroll
    for (int w = 0; w < num_warps; w++) top = fmaxf(top, merged[w][HEAD_DIM]);
#pragma unroll
    for (int w = 0; w < num_warps; w++) {
      factors[w] = merged[w][HEAD_DIM] == -infinity ? 0.0f : exp2f(merged[w][HEAD_DIM] - top);
      sum += merged[w][HEAD_DIM + 1] * factors[w];
    }
    const int head = first_head + h;
    const int64_t partial = (int64_t(sequence) * args.num_heads + head) * args.num_splits + split;
    for (int dim = threadIdx.x; dim < args.head_dim; dim += threads) {
      float output = 0.0f;
#pragma unroll
      for (int w = 0; w < num_warps; w++) output += merged[w][dim] * factors[w];
      if (is_final) {
        args.o[query_row * args.o_row_stride + int64_t(head) * args.head_dim + dim] =
            from_float<T>(sum > 0.0f || sum != sum ? output / sum : 0.0f);
      } else {
        args.partial_outputs[partial * args.head_dim + dim] = output;
      }
    }
    if (!is_final && threadIdx.x == 0) {
      args.partial_sums[partial * 2] = top;
      args.partial_sums[partial * 2 + 1] = sum;
    }
  }
  if (!is_final && is_last_to_arrive(share.num_splits))
    combine(args, {sequence, query_row, first_head, num_group_heads, share.num_splits});
}

// Grid (splits, key/value heads * chunks of their group, sequences).
extern "C" __global__ void __launch_bounds__(threads, MIN_BLOCKS_1) attention_decode_1(Decode args) {
  begin_after_previous();
  decode<1>(args);
}
extern "C" __global__ void __launch_bounds__(threads, MIN_BLOCKS_2) attention_decode_2(Decode args) {
  begin_after_previous();
  decode<2>(args);
}
extern "C" __global__ void __launch_bounds__(threads, MIN_BLOCKS_4) attention_decode_4(Decode args) {
  begin_after_previous();
  decode<4>(args);
}
