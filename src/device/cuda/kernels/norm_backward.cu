// LayerNorm and RMSNorm backward. With xHat = (s - mean) rstd and g = dy (gain + offset):
// dx = rstd (g - average(g) - xHat average(g xHat)) + dsum; without centring average(g) drops out.
// Blocks walk over rows, with the next ones under way to shared memory, and keep their share of dgain and dbias in registers; each leaves one f32 row of partial
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

// Both sums over a block of at most 16 warps, with half the exchanges of one after the other: the lower lanes of a warp add up g, the
// upper ones the product.
__device__ __forceinline__ Sums row_sums(Sums sums, Sums (&scratch)[16]) {
  const int lane = threadIdx.x & 31, num_warps = blockDim.x >> 5;
  const bool is_upper = lane >= 16;
  const auto half_sum = [](float x) {
#pragma unroll
    for (int offset = 8; offset > 0; offset >>= 1) x += __shfl_xor_sync(full_mask, x, offset);
    return x;
  };
  const float passed = __shfl_xor_sync(full_mask, is_upper ? sums.g : sums.product, 16);
  float own = half_sum((is_upper ? sums.product : sums.g) + passed);
  if (num_warps > 1) {
    float* place = reinterpret_cast<float*>(scratch) + (is_upper ? 1 : 0);
    if ((lane & 15) == 0) place[2 * (threadIdx.x >> 5)] = own;
    __syncthreads();
    own = half_sum((lane & 15) < num_warps ? place[2 * (lane & 15)] : 0.0f);
  }
  return {__shfl_sync(full_mask, own, 0), __shfl_sync(full_mask, own, 16)};
}

// Rows that are under way, in shared memory: each thread copies and reads its own packs of them, so no barrier guards the ring.
// launch/norm.ts counts its bytes by this.
template <int packs>
constexpr int num_stages = packs == 1 ? 4 : 2;

template <bool centres, int packs>
__device__ __forceinline__ void backward_rows(const Backward& args) {
  __shared__ Sums scratch[2][16];
  constexpr int stages = num_stages<packs>;
  const int num_packs = args.width / count;
  const float over_width = 1.0f / static_cast<float>(args.width);
  const int ring_packs = packs * blockDim.x;
  // Operands: 0 is dy, 1 is x, 2 is dsum.
  const auto place = [&](int stage, int operand, int p) {
    return dynamic_shared + (stage * 3 + operand) * ring_packs + p * blockDim.x + threadIdx.x;
  };
  const auto start_row = [&](int64_t row, int stage) {
    if (row < args.num_rows) {
#pragma unroll
      for (int p = 0; p < packs; p++) {
        const int pack = threadIdx.x + p * blockDim.x;
        if (pack >= num_packs) continue;
        const int64_t at = row * args.width + pack * count;
        copy_16_async(shared_address(place(stage, 0, p)), args.dy + at, true);
        copy_16_async(shared_address(place(stage, 1, p)), args.x + at, true);
        if (args.dsum != nullptr) copy_16_async(shared_address(place(stage, 2, p)), args.dsum + at, true);
      }
    }
    commit_copies();
  };
#pragma unroll
  for (int stage = 0; stage < stages - 1; stage++) start_row(blockIdx.x + stage * int64_t(gridDim.x), stage);

  float scale[packs][count] = {};
#pragma unroll
  for (int p = 0; p < packs; p++) {
    const int pack = threadIdx.x + p * blockDim.x;
    if (pack >= num_packs) continue;
    load_floats(args.gain, args.flags & 1, pack * count, scale[p]);
#pragma unroll
    for (int i = 0; i < count; i++) scale[p][i] += args.gain_offset;
  }
  float next_mean = 0.0f, next_rstd = 0.0f;
  const auto load_statistics = [&](int64_t row) {
    const bool is_row = row < args.num_rows;
    next_mean = centres && is_row ? args.mean[row] : 0.0f;
    next_rstd = is_row ? args.rstd[row] : 0.0f;
  };
  load_statistics(blockIdx.x);
  float dgain[packs][count] = {}, dbias[packs][count] = {};
  int turn = 0, stage = 0;
  for (int64_t row = blockIdx.x; row < args.num_rows; row += gridDim.x, turn ^= 1) {
    const float mean = next_mean, rstd = next_rstd;
    load_statistics(row + gridDim.x);
    start_row(row + (stages - 1) * int64_t(gridDim.x), (stage + stages - 1) % stages);
    wait_for_copies<stages - 1>();
    float g[packs][count], x_hat[packs][count];
    Sums sums = {0.0f, 0.0f};
#pragma unroll
    for (int p = 0; p < packs; p++) {
      const int pack = threadIdx.x + p * blockDim.x;
      if (pack >= num_packs) continue;
      unpack(as_pack<T>(*place(stage, 0, p)), g[p]);
      unpack(as_pack<T>(*place(stage, 1, p)), x_hat[p]);
#pragma unroll
      for (int i = 0; i < count; i++) {
        x_hat[p][i] = (x_hat[p][i] - mean) * rstd;
        dgain[p][i] += g[p][i] * x_hat[p][i];
        dbias[p][i] += g[p][i];
        g[p][i] *= scale[p][i];
        sums.g += g[p][i];
        sums.product += g[p][i] * x_hat[p][i];
      }
    }
    sums = row_sums(sums, scratch[turn]);
    const float average = centres ? sums.g * over_width : 0.0f;
    const float correlation = sums.product * over_width;
#pragma unroll
    for (int p = 0; p < packs; p++) {
      const int pack = threadIdx.x + p * blockDim.x;
      if (pack >= num_packs) continue;
      float passing[count] = {};
      if (args.dsum != nullptr) unpack(as_pack<T>(*place(stage, 2, p)), passing);
#pragma unroll
      for (int i = 0; i < count; i++) g[p][i] = rstd * (g[p][i] - average - x_hat[p][i] * correlation) + passing[i];
      store_pack(args.dx + row * args.width + pack * count, pack_of(g[p]));
    }
    stage = (stage + 1) % stages;
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
  __shared__ Sums scratch[2][16];
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

#define BACKWARD(packs, threads, blocks)                                                                     \
  extern "C" __global__ void __launch_bounds__(threads, blocks) layer_norm_backward_packs_##packs(Backward args) {   \
    backward_rows<true, packs>(args);                                                                        \
  }                                                                                                          \
  extern "C" __global__ void __launch_bounds__(threads, blocks) rms_norm_backward_packs_##packs(Backward args) {     \
    backward_rows<false, packs>(args);                                                                       \
  }
BACKWARD(1, 512, 2)
BACKWARD(2, 512, 1)

extern "C" __global__ void __launch_bounds__(256) layer_norm_backward_any(Backward args) { backward_any<true>(args); }
extern "C" __global__ void __launch_bounds__(256) rms_norm_backward_any(Backward args) { backward_any<false>(args); }
