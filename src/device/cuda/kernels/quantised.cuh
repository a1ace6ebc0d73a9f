// Quantised weights in memory: formats, values of the packed codes, and the scale of a group, as the operator table defines them.
#pragma once

constexpr int format_int8 = 0, format_nf4 = 1, format_int4 = 2;
// Codes with a scale for each row of the weight and of what it is multiplied with: known to products alone.
constexpr int format_e4m3 = 3;

// Where the scale of a group stands: plain, or quantised itself.
struct Scales {
  const float* plain;
  const uint8_t* codes;
  const float* table;
  const float* outer;
  float offset;
};

__device__ __forceinline__ float scale_of(const Scales& scales, int64_t group) {
  if (scales.plain != nullptr) return scales.plain[group];
  return scales.table[scales.codes[group]] * scales.outer[group >> 8] + scales.offset;
}

__device__ __forceinline__ float nf4_value(int code) {
  constexpr float values[16] = {-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
                                -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f,
                                0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
                                0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f};
  return values[code];
}

// The value of every code of a packed format, into shared memory: sixteen entries in sixteen banks, so that lanes that ask for
// different ones do not wait for each other. Followed by a barrier.
__device__ __forceinline__ void fill_values(float* values, int format) {
  if (threadIdx.x < 16)
    values[threadIdx.x] = format == format_nf4 ? nf4_value(threadIdx.x) : static_cast<float>(static_cast<int>(threadIdx.x) - 8);
}
