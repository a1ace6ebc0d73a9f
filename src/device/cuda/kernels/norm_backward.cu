// LayerNorm and RMSNorm backward. With xHat = (s - mean) rstd and g = dy (gain + offset):
// dx = rstd (g - average(g) - xHat average(g xHat)) + dsum; without centring average(g) drops out.
// Blocks walk over rows as in norm_forward.cu and keep their share of dgain and dbias in registers; each leaves one f32 row of partial
// sums, which finish_columns of reduce.cu adds up in order. T is the type of dy, x, dsum and dx.

struct Backward {
  const T* dy;
  const T* x;
  const void* gain;
  const float* mean;
  const float* rstd;
  const T* dsum;
  T* dx;
  // (blocks, width) each, or null.
  float* dgain_partials;
  float* dbias_partials;
  int64_t num_rows;
  int width;
  // 1: gain is bf16.
  int flags;
  float gain_offset;
};

constexpr int count = Pack<T>::count;

struct Sums {
  float g;
  float product;
};

__device__ __forceinline__ Sums row_sums(Sums sums, Sums (&scratch)[32]) {
  const int num_warps = blockDim.x >> 5;
  sums = {warp_sum(sums.g), warp_sum(sums.product)};
  if (num_warps == 1) return sums;
  if ((threadIdx.x & 31) == 0) scratch[threadIdx.x >> 5] = sums;
  __syncthreads();
  sums = (threadIdx.x & 31) < num_warps ? scratch[threadIdx.x & 31] : Sums{0.0f, 0.0f};
  return {warp_sum(sums.g), warp_sum(sums.product)};
}

template <bool centres, int packs>
__device__ __forceinline__ void backward_rows(const Backward& args) {
  __shared__ Sums scratch[2][32];
  const int num_packs = args.width / count;
  const float over_width = 1.0f / static_cast<float>(args.width);
  Pack<T> next_dy[packs], next_x[packs], next_dsum[packs];
  float next_mean = 0.0f, next_rstd = 0.0f;
  const auto load_row = [&](int64_t row) {
    const bool is_row = row < args.num_rows;
    next_mean = centres && is_row ? args.mean[row] : 0.0f;
    next_rstd = is_row ? args.rstd[row] : 0.0f;
#pragma unroll
    for (int p = 0; p < packs; p++) {
      const int pack = threadIdx.x + p * blockDim.x;
      const int64_t at = row * args.width + pack * count;
      const bool is_inside = is_row && pack < num_packs;
      next_dy[p] = is_inside ? load_pack_streaming(args.dy + at) : Pack<T>{};
      next_x[p] = is_inside ? load_pack_streaming(args.x + at) : Pack<T>{};
      next_dsum[p] = is_inside && args.dsum != nullptr ? load_pack_streaming(args.dsum + at) : Pack<T>{};
    }
  };
  load_row(blockIdx.x);
  float dgain[packs][count] = {}, dbias[packs][count] = {};
  int turn = 0;
  for (int64_t row = blockIdx.x; row < args.num_rows; row += gridDim.x, turn ^= 1) {
    float g[packs][count], x_hat[packs][count];
    Pack<T> dsum[packs];
    const float rstd = next_rstd;
    Sums sums = {0.0f, 0.0f};
#pragma unroll
    for (int p = 0; p < packs; p++) {
      dsum[p] = next_dsum[p];
      unpack(next_dy[p], g[p]);
      unpack(next_x[p], x_hat[p]);
      const int pack = threadIdx.x + p * blockDim.x;
      if (pack >= num_packs) continue;
#pragma unroll
      for (int i = 0; i < count; i++) {
        x_hat[p][i] = (x_hat[p][i] - next_mean) * rstd;
        dgain[p][i] += g[p][i] * x_hat[p][i];
        dbias[p][i] += g[p][i];
      }
      float scale[count];
      load_floats(args.gain, args.flags & 1, pack * count, scale);
#pragma unroll
      for (int i = 0; i < count; i++) g[p][i] *= scale[i] + args.gain_offset;
#pragma unroll
      for (int i = 0; i < count; i++) {
        sums.g += g[p][i];
        sums.product += g[p][i] * x_hat[p][i];
      }
    }
    load_row(row + gridDim.x);

    sums = row_sums(sums, scratch[turn]);
    const float average = centres ? sums.g * over_width : 0.0f;
    const float correlation = sums.product * over_width;
#pragma unroll
    for (int p = 0; p < packs; p++) {
      const int pack = threadIdx.x + p * blockDim.x;
      if (pack >= num_packs) continue;
      float passing[count];
      unpack(dsum[p], passing);
#pragma unroll
      for (int i = 0; i < count; i++) g[p][i] = rstd * (g[p][i] - average - x_hat[p][i] * correlation) + passing[i];
      store_pack(args.dx + row * args.width + pack * count, pack_of(g[p]));
    }
  }
#pragma unroll
  for (int p = 0; p < packs; p++) {
    const int pack = threadIdx.x + p * blockDim.x;
    if (pack >= num_packs) continue;
    const int64_t at = blockIdx.x * int64_t(args.width) + pack * count;
#pragma unroll
    for (int i = 0; i < count; i++) {
      if (args.dgain_partials != nullptr) args.dgain_partials[at + i] = dgain[p][i];
      if (args.dbias_partials != nullptr) args.dbias_partials[at + i] = dbias[p][i];
    }
  }
}

// Any width and alignment: rows are read twice, the partial sums live in memory.
template <bool centres>
__device__ __forceinline__ void backward_any(const Backward& args) {
  __shared__ Sums scratch[2][32];
  const int64_t partial_start = blockIdx.x * int64_t(args.width);
  for (int c = threadIdx.x; c < args.width; c += blockDim.x) {
    if (args.dgain_partials != nullptr) args.dgain_partials[partial_start + c] = 0.0f;
    if (args.dbias_partials != nullptr) args.dbias_partials[partial_start + c] = 0.0f;
  }
  int turn = 0;
  for (int64_t row = blockIdx.x; row < args.num_rows; row += gridDim.x, turn ^= 1) {
    const int64_t start = row * args.width;
    const float mean = centres ? args.mean[row] : 0.0f, rstd = args.rstd[row];
    const auto x_hat_at = [&](int c) { return (to_float(args.x[start + c]) - mean) * rstd; };
    const auto g_at = [&](int c) {
      return to_float(args.dy[start + c]) * (load_any(args.gain, args.flags & 1, c) + args.gain_offset);
    };
    Sums sums = {0.0f, 0.0f};
    for (int c = threadIdx.x; c < args.width; c += blockDim.x) {
      const float dy = to_float(args.dy[start + c]), x_hat = x_hat_at(c), g = g_at(c);
      sums.g += g;
      sums.product += g * x_hat;
      if (args.dgain_partials != nullptr) args.dgain_partials[partial_start + c] += dy * x_hat;
      if (args.dbias_partials != nullptr) args.dbias_partials[partial_start + c] += dy;
    }
    sums = row_sums(sums, scratch[turn]);
    const float average = centres ? sums.g / static_cast<float>(args.width) : 0.0f;
    const float correlation = sums.product / static_cast<float>(args.width);
    for (int c = threadIdx.x; c < args.width; c += blockDim.x) {
      const float passing = args.dsum == nullptr ? 0.0f : to_float(args.dsum[start + c]);
      const float dx = rstd * (g_at(c) - average - x_hat_at(c) * correlation) + passing;
      args.dx[start + c] = from_float<T>(dx);
    }
  }
}

#define BACKWARD(packs, threads)                                                                             \
  extern "C" __global__ void __launch_bounds__(threads) layer_norm_backward_packs_##packs(Backward args) {   \
    backward_rows<true, packs>(args);                                                                        \
  }                                                                                                          \
  extern "C" __global__ void __launch_bounds__(threads) rms_norm_backward_packs_##packs(Backward args) {     \
    backward_rows<false, packs>(args);                                                                       \
  }
BACKWARD(1, 512)
BACKWARD(2, 512)

extern "C" __global__ void __launch_bounds__(256) layer_norm_backward_any(Backward args) { backward_any<true>(args); }
extern "C" __global__ void __launch_bounds__(256) rms_norm_backward_any(Backward args) { backward_any<false>(args); }
