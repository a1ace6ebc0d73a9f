// y = x w^T + bias for a few rows of x and a quantised weight (n, k), read from its codes: bound by reading them once.
// A warp multiplies LINES lines of w with TOKENS rows of x. Every step takes 1024 columns, 32 to a lane, so that a lane reads 16 or 32
// bytes of a line at once and meets one group's scale. The step's columns of x lie in shared memory as f32, 36 words for every 32: lanes that
// read 16 bytes each then meet all banks. Each sum has one fixed order. T is the type of x, which may be e4m3 with a scale for each row; Out that of y.
#include "float8.cuh"
#include "quantised.cuh"

constexpr int num_warps = 8;
constexpr int threads = num_warps * 32;
constexpr int lane_columns = 32;
constexpr int step_columns = 32 * lane_columns;
constexpr int lane_words = lane_columns + 4;

struct FewRows {
  const T* x;
  const uint8_t* codes;
  const void* bias;
  Out* y;
  Scales scales;
  // Of the rows of x; null: 1.
  const float* x_scales;
  int64_t y_row_stride;
  int64_t m, n, k;
  int64_t group_size, groups_per_row;
  int32_t format;
  int32_t bias_is_bf16;
};

__device__ __forceinline__ bool is_packed(int format) { return format == format_nf4 || format == format_int4; }

// The codes of a lane's columns; zero bytes beyond the end of the line.
struct LaneCodes {
  uint4 raw[2];
};

__device__ __forceinline__ LaneCodes load_codes(const uint8_t* line, int64_t offset, int64_t row_bytes, int lane_bytes, bool is_vector) {
  LaneCodes codes = {{{0, 0, 0, 0}, {0, 0, 0, 0}}};
  const int64_t left = row_bytes - offset;
  if (left <= 0) return codes;
  if (is_vector && left >= lane_bytes) {
    codes.raw[0] = load_16_streaming(line + offset);
    if (lane_bytes == 32) codes.raw[1] = load_16_streaming(line + offset + 16);
    return codes;
  }
  uint8_t* bytes = reinterpret_cast<uint8_t*>(&codes);
  for (int i = 0; i < lane_bytes && i < left; i++) bytes[i] = line[offset + i];
  return codes;
}

__device__ __forceinline__ void decode(const LaneCodes& codes, int quad, int format, const float* values, float (&decoded)[4]) {
  if (!is_packed(format)) {
    const uint4& raw = codes.raw[quad >> 2];
    const uint32_t word = (quad & 3) == 0 ? raw.x : (quad & 3) == 1 ? raw.y : (quad & 3) == 2 ? raw.z : raw.w;
    if (format == format_e4m3) {
      e4m3_values(word, decoded);
      return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) decoded[i] = static_cast<float>(static_cast<int8_t>(word >> (8 * i) & 0xff));
    return;
  }
  const uint4& raw = codes.raw[0];
  const uint32_t pair = (quad >> 1) == 0 ? raw.x : (quad >> 1) == 1 ? raw.y : (quad >> 1) == 2 ? raw.z : raw.w;
  const uint32_t half = (quad & 1) == 0 ? pair : pair >> 16;
  // The first of two codes is in the high half of its byte.
  decoded[0] = values[half >> 4 & 15];
  decoded[1] = values[half & 15];
  decoded[2] = values[half >> 12 & 15];
  decoded[3] = values[half >> 8 & 15];
}

extern "C" __global__ void __launch_bounds__(threads) matmul_quantised(const __grid_constant__ FewRows p) {
  __shared__ float values[16];
  __shared__ float4 columns[TOKENS][32 * lane_words / 4];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int64_t first_line = (blockIdx.x * int64_t(num_warps) + warp) * LINES;
  const int64_t first_row = blockIdx.y * int64_t(TOKENS);
  const int lane_bytes = is_packed(p.format) ? 16 : 32;
  const int64_t row_bytes = is_packed(p.format) ? (p.k + 1) / 2 : p.k;
  const bool is_vector = row_bytes % 16 == 0 && is_aligned_16(p.codes);
  fill_values(values, p.format);

  float total[LINES][TOKENS] = {};
  for (int64_t begin = 0; begin < p.k; begin += step_columns) {
    LaneCodes codes[LINES];
    float scale[LINES];
    const int64_t column = begin + lane * lane_columns;
#pragma unroll
    for (int i = 0; i < LINES; i++) {
      const int64_t line = first_line + i;
      const bool is_inside = line < p.n && column < p.k;
      const int64_t offset = is_packed(p.format) ? column / 2 : column;
      codes[i] = load_codes(p.codes + line * row_bytes, is_inside ? offset : row_bytes, row_bytes, lane_bytes, is_vector);
      scale[i] = is_inside ? scale_of(p.scales, line * p.groups_per_row + column / p.group_size) : 0.0f;
    }
    __syncthreads();
    float* words = reinterpret_cast<float*>(columns);
    for (int i = threadIdx.x; i < TOKENS * step_columns; i += threads) {
      const int token = i / step_columns, c = i % step_columns;
      const int64_t row = first_row + token;
      const bool is_inside = row < p.m && begin + c < p.k;
      words[(token * 32 + c / lane_columns) * lane_words + c % lane_columns] =
          is_inside ? to_float(p.x[row * p.k + begin + c]) : 0.0f;
    }
    __syncthreads();
    float part[LINES][TOKENS] = {};
#pragma unroll
    for (int quad = 0; quad < lane_columns / 4; quad++) {
      float decoded[LINES][4];
#pragma unroll
      for (int i = 0; i < LINES; i++) decode(codes[i], quad, p.format, values, decoded[i]);
#pragma unroll
      for (int t = 0; t < TOKENS; t++) {
        const float4 x = columns[t][lane * (lane_words / 4) + quad];
#pragma unroll
        for (int i = 0; i < LINES; i++)
          part[i][t] += decoded[i][0] * x.x + decoded[i][1] * x.y + decoded[i][2] * x.z + decoded[i][3] * x.w;
      }
    }
#pragma unroll
    for (int i = 0; i < LINES; i++) {
#pragma unroll
      for (int t = 0; t < TOKENS; t++) total[i][t] += scale[i] * part[i][t];
    }
  }
#pragma unroll
  for (int i = 0; i < LINES; i++) {
#pragma unroll
    for (int t = 0; t < TOKENS; t++) {
      const float sum = warp_sum(total[i][t]);
      const int64_t line = first_line + i, row = first_row + t;
      if (lane != 0 || line >= p.n || row >= p.m) continue;
      const float shift = p.bias == nullptr ? 0.0f : load_any(p.bias, p.bias_is_bf16 != 0, line);
      const float x_scale = p.x_scales == nullptr ? 1.0f : p.x_scales[row];
      p.y[row * p.y_row_stride + line] = from_float<Out>(sum * x_scale + shift);
    }
  }
}
