// Types, conversions, 16-byte vectors and reductions for every kernel. Compiled by NVRTC without toolkit headers, so the few
// toolkit types that are needed are made here, from PTX. Invariants: round to nearest even on every store; NaN and Inf pass
// through; reductions have one fixed order, so results do not vary from run to run.
// Source: PTX ISA (cvt, ld/st cache operators).
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

constexpr int warp_size = 32;
constexpr unsigned full_mask = 0xffffffffu;
constexpr float infinity = __builtin_bit_cast(float, 0x7f800000u);

// ---- element types ----

struct alignas(2) bf16 {
  uint16_t bits;
};
struct alignas(2) f16 {
  uint16_t bits;
};
// Two neighbours; `low` is the first in memory.
struct alignas(4) bf16x2 {
  uint32_t bits;
};

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(double x) { return static_cast<float>(x); }
__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }
__device__ __forceinline__ float to_float(f16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}

template <class To>
__device__ __forceinline__ To from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) { return x; }
template <>
__device__ __forceinline__ double from_float<double>(float x) { return static_cast<double>(x); }
template <>
__device__ __forceinline__ bf16 from_float<bf16>(float x) {
  bf16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}
template <>
__device__ __forceinline__ f16 from_float<f16>(float x) {
  f16 y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}

// Both halves in one instruction.
__device__ __forceinline__ bf16x2 pack_bf16(float low, float high) {
  bf16x2 y;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y.bits) : "f"(high), "f"(low));
  return y;
}
__device__ __forceinline__ float low_float(bf16x2 x) { return __uint_as_float(x.bits << 16); }
__device__ __forceinline__ float high_float(bf16x2 x) { return __uint_as_float(x.bits & 0xffff0000u); }

// ---- 16-byte vectors ----

// `count` elements that travel as one 16-byte access; addresses must be 16-byte aligned.
template <class T>
struct alignas(16) Pack {
  static constexpr int count = 16 / sizeof(T);
  T values[count];
};

__device__ __forceinline__ bool is_aligned_16(const void* address) {
  return (reinterpret_cast<uint64_t>(address) & 15u) == 0;
}

template <class T>
__device__ __forceinline__ Pack<T> load_pack(const T* address) {
  const uint4 raw = *reinterpret_cast<const uint4*>(address);
  return reinterpret_cast<const Pack<T>&>(raw);
}
// For data that is read once: does not stay in the first-level cache.
template <class T>
__device__ __forceinline__ Pack<T> load_pack_streaming(const T* address) {
  uint4 raw;
  asm volatile("ld.global.cs.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(raw.x), "=r"(raw.y), "=r"(raw.z), "=r"(raw.w)
               : "l"(address));
  return reinterpret_cast<const Pack<T>&>(raw);
}
template <class T>
__device__ __forceinline__ void store_pack(T* address, const Pack<T>& pack) {
  *reinterpret_cast<uint4*>(address) = reinterpret_cast<const uint4&>(pack);
}
// For data that is not read again soon.
template <class T>
__device__ __forceinline__ void store_pack_streaming(T* address, const Pack<T>& pack) {
  const uint4& raw = reinterpret_cast<const uint4&>(pack);
  asm volatile("st.global.cs.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(address), "r"(raw.x), "r"(raw.y), "r"(raw.z), "r"(raw.w)
               : "memory");
}

// ---- reductions ----

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) x += __shfl_xor_sync(full_mask, x, offset);
  return x;
}
__device__ __forceinline__ double warp_sum(double x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) x += __shfl_xor_sync(full_mask, x, offset);
  return x;
}
// fmaxf drops NaN; a NaN among the inputs must reach the result.
__device__ __forceinline__ float max_nan(float a, float b) {
  float y;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
}
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) x = max_nan(x, __shfl_xor_sync(full_mask, x, offset));
  return x;
}

// Sum over a block of `threads` threads (a multiple of 32); every thread gets it. `scratch` holds 32 values in shared memory
// and may be used again after the call.
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

// ---- programmatic dependent launch (LaunchShape.overlapsPrevious) ----

// Waits until everything that the previous kernel wrote is visible.
__device__ __forceinline__ void wait_for_previous_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// Lets the next kernel of the stream start its prologue.
__device__ __forceinline__ void allow_next_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}
