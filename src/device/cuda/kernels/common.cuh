// Types, conversions, 16-byte vectors and reductions for every kernel. Compiled by NVRTC without toolkit headers, so the few
// toolkit types that are needed are made here. Invariants: round to nearest even on every store; NaN and Inf pass through;
// reductions have one fixed order, so results do not vary from run to run.
#pragma once

using int8_t = signed char;
using uint8_t = unsigned char;
using int16_t = short;
using uint16_t = unsigned short;
using int32_t = int;
using uint32_t = unsigned int;
using int64_t = long long;
using uint64_t = unsigned long long;

static_assert(sizeof(int64_t) == 8 && sizeof(void*) == 8, "64-bit targets only");

#include "ptx.cuh"

constexpr int warp_size = 32;
constexpr unsigned full_mask = 0xffffffffu;
constexpr float infinity = __builtin_bit_cast(float, 0x7f800000u);
constexpr float not_a_number = __builtin_bit_cast(float, 0x7fffffffu);
constexpr float log2_of_e = 1.4426950408889634f;
constexpr float ln_of_2 = 0.6931471805599453f;

template <class Number>
__device__ __forceinline__ constexpr Number ceil_div(Number a, Number b) {
  return (a + b - 1) / b;
}
template <class Number>
__device__ __forceinline__ constexpr Number smaller(Number a, Number b) {
  return a < b ? a : b;
}
template <class Number>
__device__ __forceinline__ constexpr Number larger(Number a, Number b) {
  return a < b ? b : a;
}

// ---- element types ----

struct alignas(2) bf16 {
  uint16_t bits;
};
struct alignas(2) f16 {
  uint16_t bits;
};
// float8.cuh knows its numbers.
struct e4m3 {
  uint8_t bits;
};
// Two neighbours; `low` is the first in memory.
struct alignas(4) bf16x2 {
  uint32_t bits;
};

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(double x) { return static_cast<float>(x); }
__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }
__device__ __forceinline__ float to_float(f16 x) { return f16_value(x.bits); }

template <class To>
__device__ __forceinline__ To from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) { return x; }
template <>
__device__ __forceinline__ double from_float<double>(float x) { return static_cast<double>(x); }
template <>
__device__ __forceinline__ bf16 from_float<bf16>(float x) { return {bf16_bits(x)}; }
template <>
__device__ __forceinline__ f16 from_float<f16>(float x) { return {f16_bits(x)}; }

// Both halves in one instruction.
__device__ __forceinline__ bf16x2 pack_bf16(float low, float high) { return {bf16x2_bits(low, high)}; }
__device__ __forceinline__ float low_float(bf16x2 x) { return __uint_as_float(x.bits << 16); }
__device__ __forceinline__ float high_float(bf16x2 x) { return __uint_as_float(x.bits & 0xffff0000u); }

// e^x: exact to the last places for f32, faster where the result is rounded to bf16 anyway.
template <class T>
__device__ __forceinline__ float exp_for(float x) {
  return expf(x);
}
template <>
__device__ __forceinline__ float exp_for<bf16>(float x) {
  return fast_exp2(x * log2_of_e);
}
template <class T>
__device__ __forceinline__ float divide_for(float a, float b) {
  return a / b;
}
template <>
__device__ __forceinline__ float divide_for<bf16>(float a, float b) {
  return __fdividef(a, b);
}

// ---- 16-byte vectors ----

// `count` elements that travel as one 16-byte access; addresses must be 16-byte aligned.
template <class T>
struct alignas(16) Pack {
  static constexpr int count = 16 / sizeof(T);
  T values[count];
};

__device__ __forceinline__ bool is_aligned(const void* address, int bytes) {
  return (reinterpret_cast<uint64_t>(address) & static_cast<uint64_t>(bytes - 1)) == 0;
}
__device__ __forceinline__ bool is_aligned_16(const void* address) { return is_aligned(address, 16); }

template <class T>
__device__ __forceinline__ Pack<T> as_pack(uint4 raw) {
  return reinterpret_cast<const Pack<T>&>(raw);
}
template <class T>
__device__ __forceinline__ Pack<T> load_pack(const T* address) {
  return as_pack<T>(*reinterpret_cast<const uint4*>(address));
}
// For data that is read once: does not stay in the first-level cache.
template <class T>
__device__ __forceinline__ Pack<T> load_pack_streaming(const T* address) {
  return as_pack<T>(load_16_streaming(address));
}
template <class T>
__device__ __forceinline__ void store_pack(T* address, const Pack<T>& pack) {
  *reinterpret_cast<uint4*>(address) = reinterpret_cast<const uint4&>(pack);
}
// For data that is not read again soon.
template <class T>
__device__ __forceinline__ void store_pack_streaming(T* address, const Pack<T>& pack) {
  store_16_streaming(address, reinterpret_cast<const uint4&>(pack));
}

__device__ __forceinline__ void unpack(const Pack<float>& pack, float (&values)[4]) {
#pragma unroll
  for (int i = 0; i < 4; i++) values[i] = pack.values[i];
}
__device__ __forceinline__ void unpack(const Pack<bf16>& pack, float (&values)[8]) {
  const uint4& raw = reinterpret_cast<const uint4&>(pack);
  const bf16x2 pairs[4] = {{raw.x}, {raw.y}, {raw.z}, {raw.w}};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    values[2 * i] = low_float(pairs[i]);
    values[2 * i + 1] = high_float(pairs[i]);
  }
}
__device__ __forceinline__ Pack<float> pack_of(const float (&values)[4]) {
  return {{values[0], values[1], values[2], values[3]}};
}
__device__ __forceinline__ Pack<bf16> pack_of(const float (&values)[8]) {
  const uint4 raw = {bf16x2_bits(values[0], values[1]), bf16x2_bits(values[2], values[3]),
                     bf16x2_bits(values[4], values[5]), bf16x2_bits(values[6], values[7])};
  return as_pack<bf16>(raw);
}

// ---- tensors whose element type, f32 or bf16, is known at run time only ----

__device__ __forceinline__ float load_any(const void* data, bool is_bf16, int64_t index) {
  return is_bf16 ? to_float(static_cast<const bf16*>(data)[index]) : static_cast<const float*>(data)[index];
}
__device__ __forceinline__ void store_any(void* data, bool is_bf16, int64_t index, float value) {
  if (is_bf16) {
    static_cast<bf16*>(data)[index] = from_float<bf16>(value);
  } else {
    static_cast<float*>(data)[index] = value;
  }
}

// `floats` neighbours, a multiple of four, at an index that is one too; the address must be 16-byte aligned.
template <int floats>
__device__ __forceinline__ void load_floats(const void* data, bool is_bf16, int index, float (&values)[floats]) {
  if (is_bf16) {
#pragma unroll
    for (int i = 0; i < floats; i += 4) {
      const uint2 raw = *reinterpret_cast<const uint2*>(static_cast<const bf16*>(data) + index + i);
      values[i] = low_float({raw.x}), values[i + 1] = high_float({raw.x});
      values[i + 2] = low_float({raw.y}), values[i + 3] = high_float({raw.y});
    }
  } else {
#pragma unroll
    for (int i = 0; i < floats; i += 4) {
      const float4 raw = *reinterpret_cast<const float4*>(static_cast<const float*>(data) + index + i);
      values[i] = raw.x, values[i + 1] = raw.y, values[i + 2] = raw.z, values[i + 3] = raw.w;
    }
  }
}

// Four neighbours: 16 bytes of f32 or 8 of bf16, so that a warp's accesses are contiguous for both.
struct Quad {
  uint4 raw;
};
__device__ __forceinline__ bool is_quad_aligned(const void* data, bool is_bf16) {
  return is_aligned(data, is_bf16 ? 8 : 16);
}
__device__ __forceinline__ Quad load_quad(const void* data, bool is_bf16, int64_t quad) {
  if (!is_bf16) return {load_16_streaming(static_cast<const uint4*>(data) + quad)};
  const uint2 raw = load_8_streaming(static_cast<const uint2*>(data) + quad);
  return {{raw.x, raw.y, 0, 0}};
}
__device__ __forceinline__ void decode_quad(const Quad& quad, bool is_bf16, float (&values)[4]) {
  const uint4& raw = quad.raw;
  values[0] = __uint_as_float(is_bf16 ? raw.x << 16 : raw.x);
  values[1] = __uint_as_float(is_bf16 ? raw.x & 0xffff0000u : raw.y);
  values[2] = __uint_as_float(is_bf16 ? raw.y << 16 : raw.z);
  values[3] = __uint_as_float(is_bf16 ? raw.y & 0xffff0000u : raw.w);
}
__device__ __forceinline__ void store_quad(void* data, bool is_bf16, int64_t quad, const float (&values)[4]) {
  if (is_bf16) {
    store_8_streaming(static_cast<uint2*>(data) + quad,
                      {bf16x2_bits(values[0], values[1]), bf16x2_bits(values[2], values[3])});
  } else {
    store_16_streaming(static_cast<uint4*>(data) + quad, {__float_as_uint(values[0]), __float_as_uint(values[1]),
                                                          __float_as_uint(values[2]), __float_as_uint(values[3])});
  }
}

// ---- reductions ----

template <class Value>
__device__ __forceinline__ Value warp_sum(Value x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) x += __shfl_xor_sync(full_mask, x, offset);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) x = max_nan(x, __shfl_xor_sync(full_mask, x, offset));
  return x;
}

// Sum over a block of a multiple of 32 threads; every thread gets it. `scratch` holds 32 values in shared memory and may be used
// again after the call.
template <class Value>
__device__ __forceinline__ Value block_sum(Value x, Value* scratch) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, num_warps = blockDim.x >> 5;
  x = warp_sum(x);
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  x = warp_sum(lane < num_warps ? scratch[lane] : Value(0));
  __syncthreads();
  return x;
}
__device__ __forceinline__ float block_max(float x, float* scratch) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, num_warps = blockDim.x >> 5;
  x = warp_max(x);
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  x = warp_max(lane < num_warps ? scratch[lane] : -infinity);
  __syncthreads();
  return x;
}
