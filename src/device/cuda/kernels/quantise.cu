// Weights to codes, a warp per group, and back, eight elements a thread. Codes are made in f32, step by step as the operator table
// says, so that every backend makes the same ones. T is the type of the plain tensor.
#include "quantised.cuh"

constexpr int threads = 256;

__device__ __forceinline__ int nearest_nf4(float x) {
  int code = 0;
#pragma unroll
  for (int i = 0; i < 15; i++) {
    const float between = static_cast<float>((static_cast<double>(nf4_value(i)) + static_cast<double>(nf4_value(i + 1))) / 2);
    code += x > between ? 1 : 0;
  }
  return code;
}

__device__ __forceinline__ int code_of(float x, float inverse, int format) {
  const float ratio = x * inverse;
  if (format == format_nf4) return nearest_nf4(ratio);
  const int nearest = static_cast<int>(rintf(ratio));
  return format == format_int8 ? nearest & 0xff : smaller(15, 8 + nearest);
}

extern "C" __global__ void __launch_bounds__(threads)
    quantise(const T* __restrict__ x, uint8_t* __restrict__ codes, float* __restrict__ scales, int64_t num_rows, int64_t width,
             int64_t group_size, int64_t groups_per_row, int format) {
  const int lane = threadIdx.x & 31;
  const int64_t group = blockIdx.x * (threads / 32ll) + (threadIdx.x >> 5);
  if (group >= num_rows * groups_per_row) return;
  const int64_t row = group / groups_per_row, begin = group % groups_per_row * group_size;
  const int64_t count = smaller(group_size, width - begin);
  const T* values = x + row * width + begin;

  // The first value of the largest magnitude.
  float extreme = 0.0f;
  int64_t place = width;
  for (int64_t i = lane; i < count; i += 32) {
    const float value = to_float(values[i]);
    if (fabsf(value) > fabsf(extreme)) {
      extreme = value;
      place = i;
    }
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) {
    const float other = __shfl_xor_sync(full_mask, extreme, offset);
    const int64_t other_place = __shfl_xor_sync(full_mask, place, offset);
    const bool is_before = fabsf(other) == fabsf(extreme) && other_place < place;
    if (fabsf(other) > fabsf(extreme) || is_before) {
      extreme = other;
      place = other_place;
    }
  }

  const float peak = fabsf(extreme);
  const float scale = format == format_int8 ? peak / 127.0f : format == format_nf4 ? peak : extreme / -8.0f;
  float inverse = 0.0f;
  if (scale != 0.0f) inverse = format == format_int8 ? 127.0f / peak : 1.0f / scale;
  if (lane == 0) scales[group] = scale == 0.0f ? 0.0f : scale;
  if (format == format_int8) {
    for (int64_t i = lane; i < count; i += 32)
      codes[row * width + begin + i] = static_cast<uint8_t>(code_of(to_float(values[i]), inverse, format));
    return;
  }
  uint8_t* packed = codes + row * ((width + 1) / 2) + begin / 2;
  for (int64_t pair = lane; 2 * pair < count; pair += 32) {
    const int high = code_of(to_float(values[2 * pair]), inverse, format);
    const int low = 2 * pair + 1 < count ? code_of(to_float(values[2 * pair + 1]), inverse, format) : 0;
    packed[pair] = static_cast<uint8_t>(high << 4 | low);
  }
}

constexpr int piece = 8;

extern "C" __global__ void __launch_bounds__(threads)
    dequantise(const uint8_t* __restrict__ codes, T* __restrict__ y, const __grid_constant__ Scales scales, int64_t num_rows,
               int64_t width, int64_t group_size, int64_t groups_per_row, int format) {
  __shared__ float values[16];
  fill_values(values, format);
  __syncthreads();
  const int64_t pieces_per_row = ceil_div(width, static_cast<int64_t>(piece));
  const int64_t row_bytes = format == format_int8 ? width : (width + 1) / 2;
  const int piece_bytes = format == format_int8 ? piece : piece / 2;
  const bool is_vector = row_bytes % piece_bytes == 0 && width % piece == 0 && is_aligned(codes, 8) && is_aligned_16(y);
  const int64_t num_pieces = num_rows * pieces_per_row;
  for (int64_t i = blockIdx.x * int64_t(threads) + threadIdx.x; i < num_pieces; i += gridDim.x * int64_t(threads)) {
    const int64_t row = i / pieces_per_row, begin = i % pieces_per_row * piece;
    const int count = static_cast<int>(smaller(int64_t(piece), width - begin));
    const float scale = scale_of(scales, row * groups_per_row + begin / group_size);
    const uint8_t* from = codes + row * row_bytes + (format == format_int8 ? begin : begin / 2);
    alignas(8) uint8_t bytes[piece];
    const int num_bytes = format == format_int8 ? count : (count + 1) / 2;
    if (is_vector && format == format_int8) {
      *reinterpret_cast<uint2*>(bytes) = *reinterpret_cast<const uint2*>(from);
    } else if (is_vector) {
      *reinterpret_cast<uint32_t*>(bytes) = *reinterpret_cast<const uint32_t*>(from);
    } else {
#pragma unroll
      for (int b = 0; b < piece; b++) bytes[b] = b < num_bytes ? from[b] : 0;
    }
    float decoded[piece];
#pragma unroll
    for (int j = 0; j < piece; j++) {
      const int byte = bytes[format == format_int8 ? j : j / 2];
      const float value = format == format_int8 ? static_cast<float>(static_cast<int8_t>(byte))
                                                : values[j % 2 == 0 ? byte >> 4 : byte & 15];
      decoded[j] = scale * value;
    }
    T* to = y + row * width + begin;
    if (is_vector) {
      constexpr int pack = Pack<T>::count;
#pragma unroll
      for (int j = 0; j < piece; j += pack) {
        float part[pack];
#pragma unroll
        for (int p = 0; p < pack; p++) part[p] = decoded[j + p];
        store_pack(to + j, pack_of(part));
      }
    } else {
#pragma unroll
      for (int j = 0; j < piece; j++)
        if (j < count) to[j] = from_float<T>(decoded[j]);
    }
  }
}

// As dequantise where every row is whole groups of 2^group_shift elements, at least eight, and everything is aligned: elements follow
// one another, so that no row needs to be known and nothing is divided. A thread takes `batch` pieces, a block's width apart.
constexpr int batch = 4;

extern "C" __global__ void __launch_bounds__(threads)
    dequantise_whole(const uint8_t* __restrict__ codes, T* __restrict__ y, const __grid_constant__ Scales scales,
                     int64_t num_pieces, int group_shift, int format) {
  __shared__ float values[16];
  fill_values(values, format);
  __syncthreads();
  const int64_t first = blockIdx.x * int64_t(threads * batch) + threadIdx.x;
  uint2 raw[batch];
  float scale[batch];
#pragma unroll
  for (int j = 0; j < batch; j++) {
    const int64_t i = first + j * threads;
    raw[j] = {0, 0};
    scale[j] = 0.0f;
    if (i >= num_pieces) continue;
    if (format == format_int8) {
      raw[j] = load_8_streaming(codes + i * piece);
    } else {
      raw[j].x = reinterpret_cast<const uint32_t*>(codes)[i];
    }
    scale[j] = scale_of(scales, i * piece >> group_shift);
  }
#pragma unroll
  for (int j = 0; j < batch; j++) {
    const int64_t i = first + j * threads;
    if (i >= num_pieces) return;
    float decoded[piece];
#pragma unroll
    for (int k = 0; k < piece; k++) {
      float value;
      if (format == format_int8) {
        const uint32_t word = k < 4 ? raw[j].x : raw[j].y;
        value = static_cast<float>(static_cast<int8_t>(word >> (8 * (k & 3)) & 0xff));
      } else {
        // The first of two codes is in the high half of its byte.
        value = values[raw[j].x >> (8 * (k >> 1) + ((k & 1) == 0 ? 4 : 0)) & 15];
      }
      decoded[k] = scale[j] * value;
    }
    constexpr int pack = Pack<T>::count;
#pragma unroll
    for (int k = 0; k < piece; k += pack) {
      float part[pack];
#pragma unroll
      for (int p = 0; p < pack; p++) part[p] = decoded[k + p];
      store_pack(y + i * piece + k, pack_of(part));
    }
  }
}
