// Rows to E4M3 codes with a scale each: a block per row, which is read once and stays in registers; and back. T is the type of the plain
// tensor.
// Launch: `_packs_N` for widths of whole packs, with ceil(width / pack / N) threads rounded up to warps; `_any` for the rest.
#include "float8.cuh"

struct QuantiseRows {
  const T* x;
  uint8_t* codes;
  float* scales;
  int64_t x_row_stride;
  int32_t width;
};

constexpr int count = Pack<T>::count;

// The first thread stores the scale.
__device__ __forceinline__ float inverse_of(const QuantiseRows& args, float peak) {
  const RowScale found = row_scale(peak);
  if (threadIdx.x == 0) args.scales[blockIdx.x] = found.scale;
  return found.inverse;
}

template <int packs>
__device__ __forceinline__ void quantise_row(const QuantiseRows& args) {
  __shared__ float scratch[32];
  allow_next_kernel();
  const int num_packs = args.width / count;
  wait_for_previous_kernel();
  const T* x = args.x + blockIdx.x * args.x_row_stride;
  uint4 raw[packs];
#pragma unroll
  for (int p = 0; p < packs; p++) {
    const int pack = threadIdx.x + p * blockDim.x;
    raw[p] = pack < num_packs ? load_16_streaming(x + pack * count) : uint4{};
  }
  float values[packs][count];
  float peak = 0.0f;
#pragma unroll
  for (int p = 0; p < packs; p++) {
    unpack(as_pack<T>(raw[p]), values[p]);
    peak = larger_magnitude(peak, values[p]);
  }
  const float inverse = inverse_of(args, block_max(peak, scratch));
  uint8_t* codes = args.codes + int64_t(blockIdx.x) * args.width;
#pragma unroll
  for (int p = 0; p < packs; p++) {
    const int pack = threadIdx.x + p * blockDim.x;
    if (pack < num_packs) store_codes(codes + pack * count, values[p], inverse);
  }
}

#define QUANTISE_ROWS(packs)                                                                                            \
  extern "C" __global__ void __launch_bounds__(512) quantise_rows_packs_##packs(const __grid_constant__ QuantiseRows args) { \
    quantise_row<packs>(args);                                                                                          \
  }
QUANTISE_ROWS(1)
QUANTISE_ROWS(2)
QUANTISE_ROWS(4)

// Any width and alignment: the row is read twice.
extern "C" __global__ void __launch_bounds__(256) quantise_rows_any(const __grid_constant__ QuantiseRows args) {
  __shared__ float scratch[32];
  begin_after_previous();
  const T* x = args.x + blockIdx.x * args.x_row_stride;
  uint8_t* codes = args.codes + int64_t(blockIdx.x) * args.width;
  float peak = 0.0f;
  for (int c = threadIdx.x; c < args.width; c += blockDim.x) peak = fmaxf(peak, fabsf(to_float(x[c])));
  const float inverse = inverse_of(args, block_max(peak, scratch));
  for (int c = threadIdx.x; c < args.width; c += blockDim.x) codes[c] = e4m3_code(to_float(x[c]) * inverse);
}

// y = codes times the row's scale, or as they are where scales is null; eight elements a thread where everything is aligned, else one.
extern "C" __global__ void __launch_bounds__(256)
    dequantise_rows(const uint8_t* __restrict__ codes, const float* __restrict__ scales, T* __restrict__ y, int64_t num_rows, int64_t width) {
  begin_after_previous();
  const int64_t thread = blockIdx.x * int64_t(blockDim.x) + threadIdx.x, num_threads = gridDim.x * int64_t(blockDim.x);
  const auto scale_of = [&](int64_t i) { return scales == nullptr ? 1.0f : scales[i / width]; };
  if (width % 8 != 0 || !is_aligned(codes, 8) || !is_aligned_16(y)) {
    for (int64_t i = thread; i < num_rows * width; i += num_threads) y[i] = from_float<T>(e4m3_value(codes[i]) * scale_of(i));
    return;
  }
  for (int64_t i = thread; i < num_rows * width / 8; i += num_threads) {
    const uint2 raw = load_8_streaming(codes + 8 * i);
    const float scale = scale_of(8 * i);
    float values[8];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float quad[4];
      e4m3_values(half == 0 ? raw.x : raw.y, quad);
#pragma unroll
      for (int j = 0; j < 4; j++) values[4 * half + j] = quad[j] * scale;
    }
#pragma unroll
    for (int j = 0; j < 8; j += count) {
      float part[count];
#pragma unroll
      for (int p = 0; p < count; p++) part[p] = values[j + p];
      store_pack(y + 8 * i + j, pack_of(part));
    }
  }
}
