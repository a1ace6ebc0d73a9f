// Attention of single query rows over a paged cache, bound by reading the keys and values once. A block owns one sequence, one key/value
// head with up to GROUP of its query heads, and one share ("split") of the context; partial results of several splits are
// combined by a second launch. How many splits a sequence really uses hangs on its length, which is read on the device, so a
// captured graph serves any length up to its maxima.
// Defines: T (type of q, cache and o), HEAD_DIM (a padded head size: 64, 128, 256). Source: Dao et al., "Flash-Decoding", 2023.

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

constexpr int threads = 128;
constexpr int num_warps = threads / 32;
constexpr int count = Pack<T>::count;
constexpr int packs_per_head = HEAD_DIM / count;
// Lanes that share a key, and packs of a key per lane.
constexpr int lanes_per_key = packs_per_head < 32 ? packs_per_head : 32;
constexpr int packs_per_lane = packs_per_head / lanes_per_key;
constexpr int keys_per_warp = 32 / lanes_per_key;
// Keys per lane and step, all under way at a time; fewer where several heads need the registers.
template <int group>
constexpr int unroll_for = (group == 1 ? 8 : 4) / packs_per_lane;
// Slots looked up at a time.
constexpr int chunk = 512;

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

template <int group>
__device__ __forceinline__ void decode(const Decode& args) {
  constexpr int unroll = unroll_for<group>;
  constexpr int keys_per_step = num_warps * keys_per_warp * unroll;
  __shared__ int slots[chunk];
  __shared__ float merged[num_warps][HEAD_DIM + 2];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int sub = lane / lanes_per_key, sub_lane = lane % lanes_per_key;
  const int sequence = blockIdx.z, split = blockIdx.x;
  // Loaded together: one waiting for memory instead of two.
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

  bool has_pack[packs_per_lane];
  float q[group][packs_per_lane * count];
#pragma unroll
  for (int p = 0; p < packs_per_lane; p++) {
    const int dim = (sub_lane + p * lanes_per_key) * count;
    has_pack[p] = dim < args.head_dim;
#pragma unroll
    for (int h = 0; h < group; h++) {
      float values[count] = {};
      if (has_pack[p] && h < num_group_heads)
        unpack(load_pack(args.q + query_row * args.q_row_stride + int64_t(first_head + h) * args.head_dim + dim), values);
#pragma unroll
      for (int i = 0; i < count; i++) q[h][p * count + i] = values[i] * args.scale_log2;
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
  const int64_t slot_stride = int64_t(args.num_kv_heads) * args.head_dim;
  const T* k_head = args.k_cache + int64_t(kv_head) * args.head_dim;
  const T* v_head = args.v_cache + int64_t(kv_head) * args.head_dim;
  const int32_t* table = args.block_tables + int64_t(sequence) * args.max_blocks;

  for (int base = share.start; base < share.end; base += chunk) {
    const int length = smaller(chunk, share.end - base);
    __syncthreads();
    for (int i = threadIdx.x; i < length; i += threads) {
      const int token = base + i;
      const int block = args.block_shift >= 0 ? token >> args.block_shift : token / args.block_size;
      slots[i] = table[block] * args.block_size + (token - block * args.block_size);
    }
    __syncthreads();
    for (int step = 0; step < length; step += keys_per_step) {
      Pack<T> keys[unroll][packs_per_lane], values[unroll][packs_per_lane];
      bool is_key[unroll];
#pragma unroll
      for (int u = 0; u < unroll; u++) {
        const int i = step + (u * num_warps + warp) * keys_per_warp + sub;
        is_key[u] = i < length;
        const int64_t at = is_key[u] ? slots[i] * slot_stride : 0;
#pragma unroll
        for (int p = 0; p < packs_per_lane; p++) {
          const int dim = (sub_lane + p * lanes_per_key) * count;
          const bool is_inside = is_key[u] && has_pack[p];
          keys[u][p] = is_inside ? load_pack_streaming(k_head + at + dim) : Pack<T>{};
          values[u][p] = is_inside ? load_pack_streaming(v_head + at + dim) : Pack<T>{};
        }
      }
      float scores[group][unroll];
#pragma unroll
      for (int u = 0; u < unroll; u++) {
#pragma unroll
        for (int h = 0; h < group; h++) scores[h][u] = 0.0f;
#pragma unroll
        for (int p = 0; p < packs_per_lane; p++) {
          float key[count];
          unpack(keys[u][p], key);
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
          if (!is_key[u]) scores[h][u] = -infinity;
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
          unpack(values[u][p], value);
#pragma unroll
          for (int h = 0; h < group; h++) {
#pragma unroll
            for (int i = 0; i < count; i++) state.output[h][p * count + i] += scores[h][u] * value[i];
          }
        }
      }
    }
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
}

// Grid (splits, key/value heads * chunks of their group, sequences).
extern "C" __global__ void __launch_bounds__(threads) attention_decode_1(Decode args) {
  begin_after_previous();
  decode<1>(args);
}
extern "C" __global__ void __launch_bounds__(threads) attention_decode_2(Decode args) {
  begin_after_previous();
  decode<2>(args);
}
extern "C" __global__ void __launch_bounds__(threads) attention_decode_4(Decode args) {
  begin_after_previous();
  decode<4>(args);
}

// Adds up the splits. Grid (H, sequences); one thread per component.
extern "C" __global__ void __launch_bounds__(HEAD_DIM) attention_combine(Decode args) {
  begin_after_previous();
  const int head = blockIdx.x, sequence = blockIdx.y, dim = threadIdx.x;
  const int query_row = args.query_starts[sequence];
  if (args.query_starts[sequence + 1] - query_row != 1) return;
  const int num_splits = share_of(args, args.context_lengths[sequence], 0).num_splits;
  if (num_splits <= 1 || dim >= args.head_dim) return;
  const int64_t first = (int64_t(sequence) * args.num_heads + head) * args.num_splits;
  float top = -infinity;
  for (int split = 0; split < num_splits; split++) top = fmaxf(top, args.partial_sums[(first + split) * 2]);
  float sum = 0.0f, output = 0.0f;
  for (int split = 0; split < num_splits; split++) {
    const float high = args.partial_sums[(first + split) * 2];
    const float factor = high == -infinity ? 0.0f : exp2f(high - top);
    sum += args.partial_sums[(first + split) * 2 + 1] * factor;
    output += args.partial_outputs[(first + split) * args.head_dim + dim] * factor;
  }
  args.o[query_row * args.o_row_stride + int64_t(head) * args.head_dim + dim] = from_float<T>(output / sum);
}
