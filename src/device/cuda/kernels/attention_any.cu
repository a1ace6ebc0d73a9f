// Attention forward, backward and over a paged cache for f32, for any head size up to 512 and for strides and addresses that the
// tensor-core kernels do not take. A block owns one row of the result; its warps share the other side, their lanes the head's
// components. Simple and slow: the arithmetic is f32 throughout. T is the type of all tensors but, with CODES 1, the cache, which holds E4M3 codes.
#if CODES
#include "kv_codes.cuh"
using Cached = e4m3;
#else
using Cached = T;
#endif

constexpr int num_warps = 4;
constexpr int threads = num_warps * 32;
// Components of a head per lane.
constexpr int parts = 16;

__device__ __forceinline__ void load_row(const T* row, int head_dim, float (&values)[parts]) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int i = 0; i < parts; i++) values[i] = i * 32 + lane < head_dim ? to_float(row[i * 32 + lane]) : 0.0f;
}
template <class Element>
__device__ __forceinline__ float dot(const float (&a)[parts], const Element* row, int head_dim) {
  const int lane = threadIdx.x & 31;
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < parts; i++)
    if (i * 32 + lane < head_dim) sum += a[i] * to_float(row[i * 32 + lane]);
  return warp_sum(sum);
}
template <class Element>
__device__ __forceinline__ void add_row(float (&sums)[parts], float factor, const Element* row, int head_dim) {
  const int lane = threadIdx.x & 31;
#pragma unroll
  for (int i = 0; i < parts; i++)
    if (i * 32 + lane < head_dim) sums[i] += factor * to_float(row[i * 32 + lane]);
}

// Adds up the warps' shares, each times its warp's factor, through dynamic shared memory of head_dim floats; the caller's first
// warp in order begins.
__device__ __forceinline__ void store_merged(const float (&sums)[parts], float factor, T* row, int head_dim) {
  float* merged = reinterpret_cast<float*>(dynamic_shared);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  for (int w = 0; w < num_warps; w++) {
    __syncthreads();
    if (w != warp) continue;
#pragma unroll
    for (int i = 0; i < parts; i++) {
      const int at = i * 32 + lane;
      if (at < head_dim) merged[at] = (w == 0 ? 0.0f : merged[at]) + sums[i] * factor;
    }
  }
  __syncthreads();
  for (int at = threadIdx.x; at < head_dim; at += threads) row[at] = from_float<T>(merged[at]);
  __syncthreads();
}

struct Softmax {
  float high;
  float sum;
};

// A row of a head and what its elements are multiplied by.
template <class Element>
struct ScaledRow {
  const Element* row;
  float scale;
};
template <class Element>
__device__ __forceinline__ ScaledRow<Element> plain(const Element* row) {
  return {row, 1.0f};
}

// One query row over `num_keys` keys; key_row(s) gives key s and value_row(s) its value. Returns the natural log of the sum of exponentials.
template <class KeyRow, class ValueRow>
__device__ float attend(const T* q_row, T* o_row, int num_keys, int head_dim, float scale, KeyRow key_row, ValueRow value_row) {
  __shared__ Softmax shares[num_warps];
  const int warp = threadIdx.x >> 5;
  float q[parts], output[parts] = {};
  load_row(q_row, head_dim, q);
  Softmax own = {-infinity, 0.0f};
  for (int s = warp; s < num_keys; s += num_warps) {
    const auto key = key_row(s);
    const auto value = value_row(s);
    const float score = dot(q, key.row, head_dim) * key.scale * scale;
    const float high = max_nan(own.high, score);
    const float factor = own.high == -infinity ? 0.0f : expf(own.high - high);
    const float weight = high == -infinity ? 0.0f : expf(score - high);
    own = {high, own.sum * factor + weight};
#pragma unroll
    for (int i = 0; i < parts; i++) output[i] *= factor;
    add_row(output, weight * value.scale, value.row, head_dim);
  }
  if ((threadIdx.x & 31) == 0) shares[warp] = own;
  __syncthreads();
  Softmax all = {-infinity, 0.0f};
  for (int w = 0; w < num_warps; w++) all.high = max_nan(all.high, shares[w].high);
  for (int w = 0; w < num_warps; w++)
    all.sum += shares[w].high == -infinity ? 0.0f : shares[w].sum * expf(shares[w].high - all.high);
  const float factor = own.high == -infinity ? 0.0f : expf(own.high - all.high) / all.sum;
  store_merged(output, factor, o_row, head_dim);
  return all.high + logf(all.sum);
}

struct Attention {
  const T* q;
  const T* k;
  const T* v;
  const T* o;
  const T* doutput;
  const float* log_sum_exp;
  const int32_t* cu_seq_lens;
  T* result;
  T* second_result;
  float* log_sum_exp_result;
  int64_t num_rows;
  int64_t q_row_stride;
  int64_t k_row_stride;
  int64_t v_row_stride;
  int64_t o_row_stride;
  int query_length;
  int key_length;
  int num_heads;
  int num_kv_heads;
  int head_dim;
  int causal;
  float scale;
};

// Where a sequence's queries and keys begin, and how many it has.
struct Segment {
  int64_t query_start;
  int64_t key_start;
  int query_length;
  int key_length;
};
__device__ __forceinline__ Segment segment_of(const Attention& args, int sequence) {
  if (args.cu_seq_lens == nullptr)
    return {int64_t(sequence) * args.query_length, int64_t(sequence) * args.key_length, args.query_length, args.key_length};
  const int start = args.cu_seq_lens[sequence], length = args.cu_seq_lens[sequence + 1] - start;
  return {start, start, length, length};
}
__device__ __forceinline__ int kv_head_of(const Attention& args, int head) {
  return static_cast<int>(int64_t(head) * args.num_kv_heads / args.num_heads);
}

// Grid (longest query, H, sequences); dynamic shared memory of head_dim floats, as in all kernels of this file. result is o.
extern "C" __global__ void __launch_bounds__(threads) attention_forward_any(Attention args) {
  const Segment segment = segment_of(args, blockIdx.z);
  const int head = blockIdx.y, t = blockIdx.x, kv_head = kv_head_of(args, head);
  if (t >= segment.query_length) return;
  const int visible = args.causal ? t + segment.key_length - segment.query_length + 1 : segment.key_length;
  const int num_keys = larger(0, smaller(visible, segment.key_length));
  const int64_t row = segment.query_start + t;
  const int64_t column = int64_t(head) * args.head_dim, kv_column = int64_t(kv_head) * args.head_dim;
  const float log_sum = attend(
      args.q + row * args.q_row_stride + column, args.result + row * args.o_row_stride + column, num_keys, args.head_dim,
      args.scale, [&](int s) { return plain(args.k + (segment.key_start + s) * args.k_row_stride + kv_column); },
      [&](int s) { return plain(args.v + (segment.key_start + s) * args.v_row_stride + kv_column); });
  if (args.log_sum_exp_result != nullptr && threadIdx.x == 0) args.log_sum_exp_result[head * args.num_rows + row] = log_sum;
}

// result is dq.
extern "C" __global__ void __launch_bounds__(threads) attention_query_gradient_any(Attention args) {
  const Segment segment = segment_of(args, blockIdx.z);
  const int head = blockIdx.y, t = blockIdx.x, kv_head = kv_head_of(args, head);
  if (t >= segment.query_length) return;
  const int visible = args.causal ? t + segment.key_length - segment.query_length + 1 : segment.key_length;
  const int num_keys = larger(0, smaller(visible, segment.key_length));
  const int64_t row = segment.query_start + t;
  const int64_t column = int64_t(head) * args.head_dim, kv_column = int64_t(kv_head) * args.head_dim;
  float q[parts], doutput[parts], dq[parts] = {};
  load_row(args.q + row * args.q_row_stride + column, args.head_dim, q);
  load_row(args.doutput + row * args.o_row_stride + column, args.head_dim, doutput);
  const float delta = dot(doutput, args.o + row * args.o_row_stride + column, args.head_dim);
  const float log_sum = args.log_sum_exp[head * args.num_rows + row];
  for (int s = threadIdx.x >> 5; s < num_keys; s += num_warps) {
    const T* key = args.k + (segment.key_start + s) * args.k_row_stride + kv_column;
    const T* value = args.v + (segment.key_start + s) * args.v_row_stride + kv_column;
    const float weight = expf(dot(q, key, args.head_dim) * args.scale - log_sum);
    const float dscore = args.scale * weight * (dot(doutput, value, args.head_dim) - delta);
    add_row(dq, dscore, key, args.head_dim);
  }
  store_merged(dq, 1.0f, args.result + row * args.q_row_stride + column, args.head_dim);
}

// Grid (longest key length, G, sequences). result is dk, second_result dv; the heads of a group are added up.
extern "C" __global__ void __launch_bounds__(threads) attention_key_gradient_any(Attention args) {
  const Segment segment = segment_of(args, blockIdx.z);
  const int kv_head = blockIdx.y, s = blockIdx.x;
  if (s >= segment.key_length) return;
  const int first_query = args.causal ? larger(0, s - (segment.key_length - segment.query_length)) : 0;
  const int64_t kv_column = int64_t(kv_head) * args.head_dim;
  const int64_t key_row = segment.key_start + s;
  float key[parts], value[parts], dk[parts] = {}, dv[parts] = {};
  load_row(args.k + key_row * args.k_row_stride + kv_column, args.head_dim, key);
  load_row(args.v + key_row * args.v_row_stride + kv_column, args.head_dim, value);
  for (int head = 0; head < args.num_heads; head++) {
    if (kv_head_of(args, head) != kv_head) continue;
    const int64_t column = int64_t(head) * args.head_dim;
    for (int t = first_query + (threadIdx.x >> 5); t < segment.query_length; t += num_warps) {
      const int64_t row = segment.query_start + t;
      const T* q = args.q + row * args.q_row_stride + column;
      const T* doutput = args.doutput + row * args.o_row_stride + column;
      float gradient[parts];
      load_row(doutput, args.head_dim, gradient);
      const float delta = dot(gradient, args.o + row * args.o_row_stride + column, args.head_dim);
      const float weight = expf(dot(key, q, args.head_dim) * args.scale - args.log_sum_exp[head * args.num_rows + row]);
      const float dscore = args.scale * weight * (dot(value, doutput, args.head_dim) - delta);
      add_row(dv, weight, doutput, args.head_dim);
      add_row(dk, dscore, q, args.head_dim);
    }
  }
  store_merged(dk, 1.0f, args.result + key_row * args.k_row_stride + kv_column, args.head_dim);
  store_merged(dv, 1.0f, args.second_result + key_row * args.v_row_stride + kv_column, args.head_dim);
}

struct Paged {
  const T* q;
  const Cached* k_cache;
  const Cached* v_cache;
  const int32_t* block_tables;
  const int32_t* context_lengths;
  const int32_t* query_starts;
  T* o;
  int64_t q_row_stride;
  int64_t o_row_stride;
  int num_heads;
  int num_kv_heads;
  int head_dim;
  int block_size;
  int max_blocks;
  float scale;
  // (G, num_slots), with CODES 1.
  const float* k_scales;
  const float* v_scales;
  int64_t num_slots;
};

// Grid (maximal query length, H, sequences).
extern "C" __global__ void __launch_bounds__(threads) attention_paged_any(Paged args) {
  const int sequence = blockIdx.z, head = blockIdx.y, t = blockIdx.x;
  const int start = args.query_starts[sequence], query_length = args.query_starts[sequence + 1] - start;
  if (t >= query_length) return;
  const int num_keys = larger(0, args.context_lengths[sequence] - query_length + t + 1);
  const int kv_head = static_cast<int>(int64_t(head) * args.num_kv_heads / args.num_heads);
  const int64_t row = start + t;
  const auto slot_of = [&](int s) {
    const int block = args.block_tables[int64_t(sequence) * args.max_blocks + s / args.block_size];
    return int64_t(block) * args.block_size + s % args.block_size;
  };
  const auto cached = [&](const Cached* cache, const float* scales, int64_t slot) {
    const Cached* row = cache + (slot * args.num_kv_heads + kv_head) * args.head_dim;
#if CODES
    return ScaledRow<Cached>{row, scales[kv_head * args.num_slots + slot]};
#else
    return plain(row);
#endif
  };
  attend(
      args.q + row * args.q_row_stride + int64_t(head) * args.head_dim,
      args.o + row * args.o_row_stride + int64_t(head) * args.head_dim, num_keys, args.head_dim, args.scale,
      [&](int s) { return cached(args.k_cache, args.k_scales, slot_of(s)); },
      [&](int s) { return cached(args.v_cache, args.v_scales, slot_of(s)); });
}
