// Cross-entropy per row with the gradient written over the logits. One block per row: a first pass keeps a running maximum and the
// sum of exponentials below it (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018), a second one turns the
// row into its gradient, from the end backwards: the first steps of a row wait in shared memory, and its end is what the second-level cache
// still holds, so that little is read twice from memory. T is the logits' type.

constexpr int threads = 1024;
constexpr int packs_per_step = 4;
constexpr int count = Pack<T>::count;

// e^(x - high) summed as sum * e^high.
struct Sum {
  float high;
  float sum;
};

// e^(x - base); for bf16 as one multiply-add and a power of two.
template <class Logit>
__device__ __forceinline__ float exp_below(float x, float base) {
  return expf(x - base);
}
template <>
__device__ __forceinline__ float exp_below<bf16>(float x, float base) {
  return fast_exp2(x * log2_of_e - base * log2_of_e);
}

// -inf minus -inf must give a weight of 1 for an empty sum, not NaN.
__device__ __forceinline__ float weight_of(float x, float high) { return high == -infinity ? 0.0f : exp_for<T>(x - high); }

__device__ __forceinline__ Sum merge(Sum a, Sum b) {
  const float high = max_nan(a.high, b.high);
  return {high, a.sum * weight_of(a.high, high) + b.sum * weight_of(b.high, high)};
}

__device__ __forceinline__ Sum block_merge(Sum own, Sum (&scratch)[32]) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1)
    own = merge(own, {__shfl_xor_sync(full_mask, own.high, offset), __shfl_xor_sync(full_mask, own.sum, offset)});
  if ((threadIdx.x & 31) == 0) scratch[threadIdx.x >> 5] = own;
  __syncthreads();
  own = (threadIdx.x & 31) < (blockDim.x >> 5) ? scratch[threadIdx.x & 31] : Sum{-infinity, 0.0f};
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1)
    own = merge(own, {__shfl_xor_sync(full_mask, own.high, offset), __shfl_xor_sync(full_mask, own.sum, offset)});
  return own;
}

extern "C" __global__ void __launch_bounds__(threads)
    cross_entropy(T* logits, const int32_t* targets, const float* row_scales, float* losses, int64_t vocab_size,
                  int ignore_index, int write_gradient, float gradient_scale, int num_kept_steps) {
  __shared__ Sum scratch[32];
  T* row = logits + blockIdx.x * vocab_size;
  const int target = targets[blockIdx.x];
  const bool is_ignored = target == ignore_index;
  const int64_t misaligned = static_cast<int64_t>((reinterpret_cast<uint64_t>(row) & 15u) / sizeof(T));
  const int64_t head = misaligned == 0 ? 0 : smaller<int64_t>(vocab_size, count - misaligned);
  const int64_t num_packs = (vocab_size - head) / count;
  T* body = row + head;
  const int64_t tail = head + num_packs * count;
  // Elements outside of whole packs: fewer than two packs, one thread each.
  const int64_t num_singles = head + (vocab_size - tail);
  const int64_t single = threadIdx.x < head ? threadIdx.x : tail + (threadIdx.x - head);
  const bool has_single = threadIdx.x < num_singles;

  if (is_ignored) {
    if (threadIdx.x == 0) losses[blockIdx.x] = 0.0f;
    if (!write_gradient) return;
    for (int64_t pack = threadIdx.x; pack < num_packs; pack += threads) store_pack_streaming(body + pack * count, Pack<T>{});
    if (has_single) row[single] = from_float<T>(0.0f);
    return;
  }

  Sum own = {-infinity, 0.0f};
  const auto take = [&](const float* values, int number) {
    float high = own.high;
    for (int i = 0; i < number; i++) high = max_nan(high, values[i]);
    // Nothing but -inf so far adds nothing, whatever the base.
    const float base = high == -infinity ? 0.0f : high;
    float sum = own.sum * exp_below<T>(own.high, base);
    for (int i = 0; i < number; i++) sum += exp_below<T>(values[i], base);
    own = {high, sum};
  };
  // Each thread keeps and reads its own packs, so no barrier is needed.
  const int64_t num_kept_packs = int64_t(num_kept_steps) * threads * packs_per_step;
  for (int64_t first = threadIdx.x; first < num_packs; first += threads * packs_per_step) {
    const bool is_kept = first < num_kept_packs;
    Pack<T> packs[packs_per_step];
#pragma unroll
    for (int p = 0; p < packs_per_step; p++) {
      if (first + p * threads >= num_packs) continue;
      const T* at = body + (first + p * threads) * count;
      packs[p] = is_kept ? as_pack<T>(load_16_once(at)) : load_pack(at);
    }
#pragma unroll
    for (int p = 0; p < packs_per_step; p++) {
      if (first + p * threads >= num_packs) continue;
      if (is_kept) dynamic_shared[first + p * threads] = reinterpret_cast<const uint4&>(packs[p]);
      float values[count];
      unpack(packs[p], values);
      take(values, count);
    }
  }
  if (has_single) {
    const float value = to_float(row[single]);
    take(&value, 1);
  }
  const float target_logit = target >= 0 && target < vocab_size ? to_float(row[target]) : not_a_number;
  // Also keeps every thread's reading of the target before any writing.
  own = block_merge(own, scratch);
  const float log_sum = own.high + logf(own.sum);
  if (threadIdx.x == 0) losses[blockIdx.x] = log_sum - target_logit;
  if (!write_gradient) return;

  const float scale = gradient_scale * (row_scales == nullptr ? 1.0f : row_scales[blockIdx.x]);
  const auto gradient_of = [&](float logit) { return exp_below<T>(logit, log_sum) * scale; };
  // The target's own logit loses one more; few packs hold it.
  const float target_gradient = (exp_below<T>(target_logit, log_sum) - 1.0f) * scale;
  if (has_single) row[single] = from_float<T>(single == target ? target_gradient : gradient_of(to_float(row[single])));
  const int64_t num_steps = ceil_div<int64_t>(num_packs, threads * packs_per_step);
  for (int64_t step = num_steps - 1; step >= 0; step--) {
    const int64_t first = step * threads * packs_per_step + threadIdx.x;
    Pack<T> packs[packs_per_step];
#pragma unroll
    for (int p = 0; p < packs_per_step; p++) {
      const int64_t pack = first + p * threads;
      if (pack >= num_packs) continue;
      packs[p] = step < num_kept_steps ? as_pack<T>(dynamic_shared[pack]) : load_pack_streaming(body + pack * count);
    }
#pragma unroll
    for (int p = 0; p < packs_per_step; p++) {
      const int64_t pack = first + p * threads;
      if (pack >= num_packs) continue;
      float values[count];
      unpack(packs[p], values);
#pragma unroll
      for (int i = 0; i < count; i++) values[i] = gradient_of(values[i]);
      const int64_t place = target - (head + pack * count);
      if (place >= 0 && place < count) {
#pragma unroll
        for (int i = 0; i < count; i++) values[i] = i == place ? target_gradient : values[i];
      }
      store_pack_streaming(body + pack * count, pack_of(values));
    }
  }
}
