// low = x a^T with the adapter of each row: a block takes a group of rows (row_adapter.cuh) and four ranks, whose lines of a it holds in registers,
// loaded while the kernels before still run where nothing writes them; then x is the one thing to wait for. T is the type of x and a.
#include "row_adapter.cuh"

constexpr int threads = 256;
constexpr int num_warps = threads / 32;
constexpr int ranks = 4;
// Packs of a line that a thread holds.
constexpr int packs = 2;
constexpr int count = Pack<T>::count;
constexpr int chunk_columns = threads * packs * count;

struct AdapterDown {
  const T* x;
  const T* a;
  const int32_t* slots;
  // (rows, rank)
  float* low;
  int64_t x_row_stride;
  int32_t num_rows, width, rank, blocks_per_row;
  // Nothing that is still running can write a or slots.
  int32_t is_settled;
};

// Sums over a warp; lane l gets that of value l / (32 / n). Every value is added up as by warp_sum.
template <int n, int offset = 16>
__device__ __forceinline__ float warp_sums(const float (&values)[n]) {
  if constexpr (n == 1) {
    float sum = values[0];
#pragma unroll
    for (int distance = offset; distance > 0; distance /= 2) sum += __shfl_xor_sync(full_mask, sum, distance);
    return sum;
  } else {
    const bool is_upper = threadIdx.x & offset;
    float halves[n / 2];
#pragma unroll
    for (int i = 0; i < n / 2; i++) {
      const float given = is_upper ? values[i] : values[i + n / 2];
      halves[i] = (is_upper ? values[i + n / 2] : values[i]) + __shfl_xor_sync(full_mask, given, offset);
    }
    return warp_sums<n / 2, offset / 2>(halves);
  }
}

// Grid: rows, each with as many blocks as fours of ranks. Needs whole packs: width, stride, addresses.
extern "C" __global__ void __launch_bounds__(threads, 2) adapter_down(const __grid_constant__ AdapterDown args) {
  __shared__ float partial[num_warps][ROWS * ranks];
  allow_next_kernel();
  if (!args.is_settled) wait_for_previous_kernel();
  const int first_rank = blockIdx.x % args.blocks_per_row * ranks;
  const Group group = group_of(args.slots, args.num_rows, blockIdx.x / args.blocks_per_row);
  if (group.count == 0) return end_idle_block();
  const T* const lines = args.a + (int64_t(group.slot) * args.rank + first_rank) * args.width;
  const int own = threadIdx.x * count;
  uint4 line[ranks][packs];
  const auto load_lines = [&](int chunk) {
#pragma unroll
    for (int r = 0; r < ranks; r++) {
#pragma unroll
      for (int p = 0; p < packs; p++) {
        const int at = chunk + p * threads * count + own;
        const bool is_inside = at < args.width && first_rank + r < args.rank;
        line[r][p] = is_inside ? load_16_streaming(lines + int64_t(r) * args.width + at) : uint4{};
      }
    }
  };
  load_lines(0);
  // What registers do not hold waits in the second-level cache: a line of it is that of eight lanes.
  for (int chunk = chunk_columns; chunk < args.width; chunk += chunk_columns) {
    for (int i = own; i < chunk_columns && chunk + i < args.width && threadIdx.x % 8 == 0; i += threads * count)
      for (int r = 0; r < ranks && first_rank + r < args.rank; r++) prefetch_l2(lines + int64_t(r) * args.width + chunk + i);
  }
  const T* x[ROWS];
#pragma unroll
  for (int i = 0; i < ROWS; i++) x[i] = args.x + group.row(i) * args.x_row_stride;
  float sums[ROWS * ranks] = {};
  wait_for_previous_kernel();
  for (int chunk = 0; chunk < args.width; chunk += chunk_columns) {
    if (chunk > 0) load_lines(chunk);
    uint4 raw[ROWS][packs];
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
#pragma unroll
      for (int p = 0; p < packs; p++) {
        const int at = chunk + p * threads * count + own;
        raw[i][p] = i < group.count && at < args.width ? load_16_streaming(x[i] + at) : uint4{};
      }
    }
#pragma unroll
    for (int p = 0; p < packs; p++) {
#pragma unroll
      for (int i = 0; i < ROWS; i++) {
        float left[count];
        unpack(as_pack<T>(raw[i][p]), left);
#pragma unroll
        for (int r = 0; r < ranks; r++) {
          float right[count];
          unpack(as_pack<T>(line[r][p]), right);
#pragma unroll
          for (int j = 0; j < count; j++) sums[i * ranks + r] = fmaf(left[j], right[j], sums[i * ranks + r]);
        }
      }
    }
  }
  constexpr int lanes_per_sum = 32 / (ROWS * ranks);
  const float sum = warp_sums(sums);
  const int lane = threadIdx.x & 31;
  if (lane % lanes_per_sum == 0) partial[threadIdx.x >> 5][lane / lanes_per_sum] = sum;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  // Whole warps ask for the rows of a group.
  const int value = smaller(lane, ROWS * ranks - 1);
  const int row = group.row(value / ranks), rank = first_rank + value % ranks;
  float total = 0.0f;
#pragma unroll
  for (int warp = 0; warp < num_warps; warp++) total += partial[warp][value];
  if (lane == value && value / ranks < group.count && rank < args.rank) args.low[int64_t(row) * args.rank + rank] = total;
}

// Any layout, a warp per rank. Grid: rows, each with as many blocks as eights of ranks.
extern "C" __global__ void __launch_bounds__(threads) adapter_down_any(const __grid_constant__ AdapterDown args) {
  begin_after_previous();
  const int lane = threadIdx.x & 31;
  const int64_t row = blockIdx.x / args.blocks_per_row;
  const int rank = blockIdx.x % args.blocks_per_row * num_warps + (threadIdx.x >> 5);
  const int slot = args.slots[row];
  if (slot < 0 || rank >= args.rank) return;
  const T* x = args.x + row * args.x_row_stride;
  const T* line = args.a + (int64_t(slot) * args.rank + rank) * args.width;
  float sum = 0.0f;
  for (int i = lane; i < args.width; i += 32) sum += to_float(x[i]) * to_float(line[i]);
  sum = warp_sum(sum);
  if (lane == 0) args.low[row * args.rank + rank] = sum;
}
