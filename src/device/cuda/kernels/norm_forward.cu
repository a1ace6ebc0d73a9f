// LayerNorm and RMSNorm forward with the residual addition before them. A block owns a row at a time, in registers; the next row's
// loads are under way while the present one is reduced, so that memory never waits for a barrier. T is the type of x, addend, sum
// and y; gain and bias have run-time types and stay in registers where a thread has one pack, else in the first-level cache.
// `_codes` also quantises the stored rows (quantiseRows), while they are in registers.
// Launch: `_packs_N` for widths of whole packs, with ceil(width / pack / N) threads rounded up to warps; `_any` for the rest.
#include "float8.cuh"

struct Forward {
  const T* x;
  const T* addend;
  const void* gain;
  const void* bias;
  T* sum;
  T* y;
  float* mean;
  float* rstd;
  uint8_t* codes;
  float* scales;
  int64_t num_rows;
  int width;
  // 1: gain is bf16; 2: bias is bf16.
  int flags;
  float eps;
  float gain_offset;
};

constexpr int count = Pack<T>::count;

// Sum over the block with one barrier; scratch rows are used in turn, so that a row is written again only after another barrier.
__device__ __forceinline__ float row_sum(float x, float (&scratch)[32]) {
  const int num_warps = blockDim.x >> 5;
  x = warp_sum(x);
  if (num_warps == 1) return x;
  if ((threadIdx.x & 31) == 0) scratch[threadIdx.x >> 5] = x;
  __syncthreads();
  return warp_sum((threadIdx.x & 31) < num_warps ? scratch[threadIdx.x & 31] : 0.0f);
}

// The largest of the block, likewise.
__device__ __forceinline__ float row_max(float x, float (&scratch)[32]) {
  const int num_warps = blockDim.x >> 5;
  x = warp_max(x);
  if (num_warps == 1) return x;
  if ((threadIdx.x & 31) == 0) scratch[threadIdx.x >> 5] = x;
  __syncthreads();
  return warp_max((threadIdx.x & 31) < num_warps ? scratch[threadIdx.x & 31] : 0.0f);
}

// A thread's share of gain or bias as it lies in memory: decoding it at the load would wait for it there.
struct Weights {
  static constexpr int words = count / 4;
  uint4 raw[words];
};
__device__ __forceinline__ const char* weights_at(const void* data, bool is_bf16, int pack) {
  return static_cast<const char*>(data) + int64_t(pack) * count * (is_bf16 ? 2 : 4);
}
__device__ __forceinline__ Weights load_weights(const void* data, bool is_bf16, int pack) {
  const char* address = weights_at(data, is_bf16, pack);
  Weights weights = {};
  if (!is_bf16) {
#pragma unroll
    for (int i = 0; i < Weights::words; i++) weights.raw[i] = reinterpret_cast<const uint4*>(address)[i];
  } else if constexpr (count == 8) {
    weights.raw[0] = *reinterpret_cast<const uint4*>(address);
  } else {
    const uint2 half = *reinterpret_cast<const uint2*>(address);
    weights.raw[0] = {half.x, half.y, 0, 0};
  }
  return weights;
}
__device__ __forceinline__ void decode(const Weights& weights, bool is_bf16, float (&values)[count]) {
#pragma unroll
  for (int i = 0; i < Weights::words; i++) {
    const uint4& raw = weights.raw[i];
    // Not before the loop over rows, where it would be waited for.
    const uint32_t words[4] = {opaque(raw.x), opaque(raw.y), opaque(raw.z), opaque(raw.w)};
#pragma unroll
    for (int j = 0; j < 4; j++)
      if (!is_bf16) values[4 * i + j] = __uint_as_float(words[j]);
    if (i > 0) continue;
#pragma unroll
    for (int j = 0; j < count / 2; j++)
      if (is_bf16) values[2 * j] = low_float({words[j]}), values[2 * j + 1] = high_float({words[j]});
  }
}

template <bool centres, int packs, bool quantises>
__device__ __forceinline__ void forward_rows(const Forward& args) {
  __shared__ float scratch[4][32];
  __shared__ float peaks[quantises ? 2 : 1][32];
  allow_next_kernel();
  const int num_packs = args.width / count;
  const bool has_bf16_gain = args.flags & 1, has_bf16_bias = args.flags & 2;
  // With one pack there are registers to spare, and few rows, whose time is that of waiting for memory.
  const bool holds_weights = packs == 1 && static_cast<int>(threadIdx.x) < num_packs;
  if (holds_weights) {
    prefetch_l2(weights_at(args.gain, has_bf16_gain, threadIdx.x));
    if (args.bias != nullptr) prefetch_l2(weights_at(args.bias, has_bf16_bias, threadIdx.x));
  }
  const float over_width = 1.0f / static_cast<float>(args.width);
  wait_for_previous_kernel();
  uint4 next_x[packs], next_addend[packs];
  const auto load_row = [&](int64_t row) {
#pragma unroll
    for (int p = 0; p < packs; p++) {
      const int pack = threadIdx.x + p * blockDim.x;
      const int64_t at = row * args.width + pack * count;
      const bool is_inside = row < args.num_rows && pack < num_packs;
      next_x[p] = is_inside ? load_16_streaming(args.x + at) : uint4{};
      next_addend[p] = is_inside && args.addend != nullptr ? load_16_streaming(args.addend + at) : uint4{};
    }
  };
  load_row(blockIdx.x);
  Weights gain = {}, bias = {};
  if (holds_weights) {
    gain = load_weights(args.gain, has_bf16_gain, threadIdx.x);
    if (args.bias != nullptr) bias = load_weights(args.bias, has_bf16_bias, threadIdx.x);
  }
  int turn = 0;
  for (int64_t row = blockIdx.x; row < args.num_rows; row += gridDim.x, turn ^= 2) {
    float s[packs][count];
    float total = 0.0f;
#pragma unroll
    for (int p = 0; p < packs; p++) {
      unpack(as_pack<T>(next_x[p]), s[p]);
      if (args.addend != nullptr) {
        float added[count];
        unpack(as_pack<T>(next_addend[p]), added);
#pragma unroll
        for (int i = 0; i < count; i++) s[p][i] += added[i];
      }
      const int pack = threadIdx.x + p * blockDim.x;
      if (args.sum != nullptr) {
        const Pack<T> rounded = pack_of(s[p]);
        unpack(rounded, s[p]);
        if (pack < num_packs) store_pack(args.sum + row * args.width + pack * count, rounded);
      }
#pragma unroll
      for (int i = 0; i < count; i++) total += s[p][i];
    }
    load_row(row + gridDim.x);
    const float mean = centres ? row_sum(total, scratch[turn]) * over_width : 0.0f;
    float squares = 0.0f;
#pragma unroll
    for (int p = 0; p < packs; p++) {
      if (threadIdx.x + p * blockDim.x >= num_packs) continue;
#pragma unroll
      for (int i = 0; i < count; i++) squares += (s[p][i] - mean) * (s[p][i] - mean);
    }
    const float rstd = 1.0f / sqrtf(row_sum(squares, scratch[turn + 1]) * over_width + args.eps);
    if (threadIdx.x == 0) {
      if (args.mean != nullptr) args.mean[row] = mean;
      if (args.rstd != nullptr) args.rstd[row] = rstd;
    }
    float peak = 0.0f;
#pragma unroll
    for (int p = 0; p < packs; p++) {
      const int pack = threadIdx.x + p * blockDim.x;
      if (pack >= num_packs) continue;
      float scale[count], shift[count] = {};
      if (packs == 1) {
        decode(gain, has_bf16_gain, scale);
        decode(bias, has_bf16_bias, shift);
      } else {
        load_floats(args.gain, has_bf16_gain, pack * count, scale);
        if (args.bias != nullptr) load_floats(args.bias, has_bf16_bias, pack * count, shift);
      }
#pragma unroll
      for (int i = 0; i < count; i++)
        s[p][i] = (s[p][i] - mean) * rstd * (scale[i] + args.gain_offset) + shift[i];
      const Pack<T> rounded = pack_of(s[p]);
      store_pack(args.y + row * args.width + pack * count, rounded);
      if constexpr (quantises) {
        unpack(rounded, s[p]);
        peak = larger_magnitude(peak, s[p]);
      }
    }
    if constexpr (quantises) {
      const RowScale found = row_scale(row_max(peak, peaks[turn >> 1]));
      if (threadIdx.x == 0) args.scales[row] = found.scale;
#pragma unroll
      for (int p = 0; p < packs; p++) {
        const int pack = threadIdx.x + p * blockDim.x;
        if (pack < num_packs) store_codes(args.codes + row * args.width + pack * count, s[p], found.inverse);
      }
    }
  }
}

// Any width and alignment: the row is read again for each of its passes.
template <bool centres>
__device__ __forceinline__ void forward_any(const Forward& args) {
  __shared__ float scratch[4][32];
  int turn = 0;
  for (int64_t row = blockIdx.x; row < args.num_rows; row += gridDim.x, turn ^= 2) {
    const int64_t start = row * args.width;
    const auto value = [&](int c) {
      const float s = to_float(args.x[start + c]) + (args.addend == nullptr ? 0.0f : to_float(args.addend[start + c]));
      return args.sum == nullptr ? s : to_float(from_float<T>(s));
    };
    float total = 0.0f;
    for (int c = threadIdx.x; c < args.width; c += blockDim.x) total += value(c);
    const float mean = centres ? row_sum(total, scratch[turn]) / static_cast<float>(args.width) : 0.0f;
    float squares = 0.0f;
    for (int c = threadIdx.x; c < args.width; c += blockDim.x) squares += (value(c) - mean) * (value(c) - mean);
    const float variance = row_sum(squares, scratch[turn + 1]) / static_cast<float>(args.width);
    const float rstd = 1.0f / sqrtf(variance + args.eps);
    if (threadIdx.x == 0) {
      if (args.mean != nullptr) args.mean[row] = mean;
      if (args.rstd != nullptr) args.rstd[row] = rstd;
    }
    for (int c = threadIdx.x; c < args.width; c += blockDim.x) {
      const float s = value(c);
      const float scale = load_any(args.gain, args.flags & 1, c) + args.gain_offset;
      const float shift = args.bias == nullptr ? 0.0f : load_any(args.bias, args.flags & 2, c);
      if (args.sum != nullptr) args.sum[start + c] = from_float<T>(s);
      args.y[start + c] = from_float<T>((s - mean) * rstd * scale + shift);
    }
  }
}

#define FORWARD(name, centres, packs, suffix, quantises)                                                 \
  extern "C" __global__ void __launch_bounds__(512) name##_forward_packs_##packs##suffix(Forward args) { \
    forward_rows<centres, packs, quantises>(args);                                                       \
  }
#define FORWARDS(packs)                              \
  FORWARD(layer_norm, true, packs, , false)          \
  FORWARD(layer_norm, true, packs, _codes, true)     \
  FORWARD(rms_norm, false, packs, , false)           \
  FORWARD(rms_norm, false, packs, _codes, true)
FORWARDS(1)
FORWARDS(2)
FORWARDS(4)

extern "C" __global__ void __launch_bounds__(256) layer_norm_forward_any(Forward args) {
  begin_after_previous();
  forward_any<true>(args);
}
extern "C" __global__ void __launch_bounds__(256) rms_norm_forward_any(Forward args) {
  begin_after_previous();
  forward_any<false>(args);
}
