// Low-rank additions chosen row by row: products with a into scratch memory, a warp per rank, then products with b added to y, a thread
// per output. Rows without an adapter end at once. T is the type of x, a and b.

constexpr int threads = 256;
constexpr int num_warps = threads / 32;

struct Adapter {
  const T* x;
  const T* a;
  const T* b;
  const float* scales;
  const int32_t* slots;
  void* y;
  // (rows, rank)
  float* low;
  int64_t x_row_stride, y_row_stride;
  int32_t width_in, width_out, rank, y_is_bf16;
};

// Grid: rows, then ranks by warps.
extern "C" __global__ void __launch_bounds__(threads) adapter_down(const __grid_constant__ Adapter p) {
  const int lane = threadIdx.x & 31, r = blockIdx.y * num_warps + (threadIdx.x >> 5);
  const int64_t row = blockIdx.x;
  const int slot = p.slots[row];
  if (slot < 0 || r >= p.rank) return;
  const T* x = p.x + row * p.x_row_stride;
  const T* line = p.a + (int64_t(slot) * p.rank + r) * p.width_in;
  constexpr int pack = Pack<T>::count;
  float sum = 0.0f;
  int begin = 0;
  if (p.width_in % pack == 0 && is_aligned_16(x) && is_aligned_16(line)) {
    for (int i = lane * pack; i < p.width_in; i += 32 * pack) {
      float left[pack], right[pack];
      unpack(load_pack(x + i), left);
      unpack(load_pack(line + i), right);
#pragma unroll
      for (int j = 0; j < pack; j++) sum += left[j] * right[j];
    }
    begin = p.width_in;
  }
  for (int i = begin + lane; i < p.width_in; i += 32) sum += to_float(x[i]) * to_float(line[i]);
  sum = warp_sum(sum);
  if (lane == 0) p.low[row * p.rank + r] = sum;
}

// Grid: rows, then outputs by threads; rank words of dynamic shared memory.
extern "C" __global__ void __launch_bounds__(threads) adapter_up(const __grid_constant__ Adapter p) {
  float* low = reinterpret_cast<float*>(dynamic_shared);
  const int64_t row = blockIdx.x;
  const int slot = p.slots[row];
  if (slot < 0) return;
  for (int r = threadIdx.x; r < p.rank; r += threads) low[r] = p.low[row * p.rank + r];
  __syncthreads();
  const int output = blockIdx.y * threads + threadIdx.x;
  if (output >= p.width_out) return;
  const T* line = p.b + (int64_t(slot) * p.width_out + output) * p.rank;
  constexpr int pack = Pack<T>::count;
  float sum = 0.0f;
  int begin = 0;
  if (p.rank % pack == 0 && is_aligned_16(line)) {
    for (int r = 0; r < p.rank; r += pack) {
      float values[pack];
      unpack(load_pack(line + r), values);
#pragma unroll
      for (int j = 0; j < pack; j++) sum += low[r + j] * values[j];
    }
    begin = p.rank;
  }
  for (int r = begin; r < p.rank; r++) sum += low[r] * to_float(line[r]);
  const int64_t at = row * p.y_row_stride + output;
  const bool is_bf16 = p.y_is_bf16 != 0;
  store_any(p.y, is_bf16, at, load_any(p.y, is_bf16, at) + p.scales[slot] * sum);
}
