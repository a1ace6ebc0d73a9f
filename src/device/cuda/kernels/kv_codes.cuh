// Keys and values of a paged cache as E4M3 codes with a scale for each token and head, as quantiseRows makes them of a head's vector: of keys
// that are turned already and rounded to their type.
#pragma once
#include "float8.cuh"

// `count` neighbouring codes, a multiple of four.
template <int count>
struct alignas(count) Codes {
  uint32_t words[count / 4];
};
template <int count>
__device__ __forceinline__ Codes<count> load_codes_streaming(const e4m3* address) {
  static_assert(count == 4 || count == 8 || count == 16, "one access");
  if constexpr (count == 16) {
    const uint4 raw = load_16_streaming(address);
    return {{raw.x, raw.y, raw.z, raw.w}};
  } else if constexpr (count == 8) {
    const uint2 raw = load_8_streaming(address);
    return {{raw.x, raw.y}};
  } else {
    return {{*reinterpret_cast<const uint32_t*>(address)}};
  }
}
template <int count>
__device__ __forceinline__ void store_codes_streaming(e4m3* address, const Codes<count>& codes) {
  if constexpr (count == 16) {
    store_16_streaming(address, {codes.words[0], codes.words[1], codes.words[2], codes.words[3]});
  } else if constexpr (count == 8) {
    store_8_streaming(address, {codes.words[0], codes.words[1]});
  } else {
    *reinterpret_cast<uint32_t*>(address) = codes.words[0];
  }
}
template <int count>
__device__ __forceinline__ void unpack(const Codes<count>& codes, float (&values)[count]) {
#pragma unroll
  for (int i = 0; i < count; i += 4) {
    float quad[4];
    e4m3_values(codes.words[i / 4], quad);
#pragma unroll
    for (int j = 0; j < 4; j++) values[i + j] = quad[j];
  }
}
template <int count>
__device__ __forceinline__ Codes<count> codes_of(const float* values, float inverse) {
  Codes<count> codes;
#pragma unroll
  for (int i = 0; i < count; i += 4) {
    float quad[4];
#pragma unroll
    for (int j = 0; j < 4; j++) quad[j] = values[i + j] * inverse;
    codes.words[i / 4] = e4m3_codes(quad);
  }
  return codes;
}
// The largest of `lanes` neighbouring lanes.
template <int lanes>
__device__ __forceinline__ float peak_of_lanes(float peak) {
#pragma unroll
  for (int offset = lanes / 2; offset > 0; offset >>= 1) peak = fmaxf(peak, __shfl_xor_sync(full_mask, peak, offset));
  return peak;
}
