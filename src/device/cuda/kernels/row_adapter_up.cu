// y += scale (low b^T) with the adapter of each row: a block takes a group of rows (row_adapter.cuh) and a stretch of outputs, whose lines of b it
// holds in registers, loaded while the kernels before still run where nothing writes them; then low and y are waited for together.
// T is the type of b, Out that of y.
#include "row_adapter.cuh"

constexpr int threads = 128;
// Pieces of 16 bytes of b that a thread holds.
constexpr int pieces = ROWS == 1 ? 8 : 4;
constexpr int count = Pack<T>::count;

struct AdapterUp {
  // (rows, parts, rank)
  const float* low;
  const T* b;
  // (slots, parts)
  const float* scales;
  const int32_t* slots;
  Out* y;
  int64_t y_row_stride;
  int32_t num_rows, width, rank, num_parts, second_start, third_start;
  // Blocks of a row: all, and those before the second and the third part, each of which begins with a block of its own.
  int32_t blocks_per_row, second_block, third_block;
  // A line of b is a piece of each of 2^log_lanes lanes.
  int32_t log_lanes;
  // Nothing that is still running can write b, scales or slots.
  int32_t is_settled;
};

__device__ __forceinline__ float read_here(const float* address) { return load_here(address); }
__device__ __forceinline__ bf16 read_here(const bf16* address) { return {load_here(&address->bits)}; }

// A lane's share of a row of low.
__device__ __forceinline__ void load_share(const float* low, float (&values)[count]) {
#pragma unroll
  for (int j = 0; j < count; j += 4) {
    const uint4 raw = load_16_streaming(low + j);
    values[j] = __uint_as_float(raw.x), values[j + 1] = __uint_as_float(raw.y);
    values[j + 2] = __uint_as_float(raw.z), values[j + 3] = __uint_as_float(raw.w);
  }
}

// Grid: rows, each with as many blocks as stretches of its parts. Needs whole pieces: lines of b and low, of a power of two of lanes.
extern "C" __global__ void __launch_bounds__(threads, 5) adapter_up(const __grid_constant__ AdapterUp args) {
  allow_next_kernel();
  if (!args.is_settled) wait_for_previous_kernel();
  const int block = blockIdx.x % args.blocks_per_row;
  const Group group = group_of(args.slots, args.num_rows, blockIdx.x / args.blocks_per_row);
  if (group.count == 0) return end_idle_block();
  const int part = (block >= args.second_block) + (block >= args.third_block);
  const int start = part == 0 ? 0 : part == 1 ? args.second_start : args.third_start;
  const int end = part == 0 ? args.second_start : part == 1 ? args.third_start : args.width;
  const int stretch = block - (part == 0 ? 0 : part == 1 ? args.second_block : args.third_block);
  const int lane = threadIdx.x & 31, num_lanes = 1 << args.log_lanes, part_lane = lane & (num_lanes - 1);
  // A warp's pieces lie one after the other: 32 with every load.
  const int first = (stretch * (threads / 32) + (threadIdx.x >> 5)) * (32 * pieces) + lane;
  const int first_output = start + (first >> args.log_lanes), step = 32 >> args.log_lanes;
  const T* const b = args.b + (int64_t(group.slot) * args.width + start) * args.rank + int64_t(first) * count;
  uint4 raw[pieces];
#pragma unroll
  for (int k = 0; k < pieces; k++)
    raw[k] = first_output + k * step < end ? load_16_streaming(b + 32 * k * count) : uint4{};
  const float scale = args.scales[group.slot * args.num_parts + part];
  Out* y[ROWS];
  const float* low[ROWS];
#pragma unroll
  for (int i = 0; i < ROWS; i++) {
    const int64_t row = group.row(i);
    y[i] = args.y + row * args.y_row_stride + first_output;
    low[i] = args.low + (row * args.num_parts + part) * args.rank + part_lane * count;
  }
  // Of the lanes that share an output, one adds to it: by turns.
  const auto adds = [&](int k) { return part_lane == (k & (num_lanes - 1)) && first_output + k * step < end; };
  Out old[ROWS][pieces];
  float left[ROWS][count];
  wait_for_previous_kernel();
#pragma unroll
  for (int i = 0; i < ROWS; i++) {
    if (i >= group.count) break;
#pragma unroll
    for (int k = 0; k < pieces; k++)
      if (adds(k)) old[i][k] = read_here(y[i] + k * step);
    load_share(low[i], left[i]);
  }
#pragma unroll
  for (int i = 0; i < ROWS; i++) {
    if (i >= group.count) break;
    float sums[pieces] = {};
#pragma unroll
    for (int k = 0; k < pieces; k++) {
      float right[count];
      unpack(as_pack<T>(raw[k]), right);
#pragma unroll
      for (int j = 0; j < count; j++) sums[k] = fmaf(left[i][j], right[j], sums[k]);
    }
    for (int offset = num_lanes / 2; offset > 0; offset /= 2) {
#pragma unroll
      for (int k = 0; k < pieces; k++) sums[k] += __shfl_xor_sync(full_mask, sums[k], offset);
    }
#pragma unroll
    for (int k = 0; k < pieces; k++)
      if (adds(k)) y[i][k * step] = from_float<Out>(fmaf(scale, sums[k], to_float(old[i][k])));
  }
}

// Any layout, a thread per output. Grid: rows, each with as many blocks as stretches.
extern "C" __global__ void __launch_bounds__(threads) adapter_up_any(const __grid_constant__ AdapterUp args) {
  begin_after_previous();
  const int64_t row = blockIdx.x / args.blocks_per_row;
  const int output = blockIdx.x % args.blocks_per_row * threads + threadIdx.x;
  const int slot = args.slots[row];
  if (slot < 0 || output >= args.width) return;
  const int part = (output >= args.second_start) + (output >= args.third_start);
  const float* low = args.low + (row * args.num_parts + part) * args.rank;
  const T* line = args.b + (int64_t(slot) * args.width + output) * args.rank;
  float sum = 0.0f;
  for (int r = 0; r < args.rank; r++) sum += low[r] * to_float(line[r]);
  Out* const y = args.y + row * args.y_row_stride + output;
  *y = from_float<Out>(to_float(*y) + args.scales[slot * args.num_parts + part] * sum);
}
