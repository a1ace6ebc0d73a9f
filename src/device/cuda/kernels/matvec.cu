// y = x w^T for a few rows of x (m, k) and a bf16 weight w (n, k): bound by reading w once.
// The tensor cores do the arithmetic with rows of w as the tall operand, so that eight rows of x cost what one does. The order of the
// inner dimension is free as long as both operands share it: a lane's 16 bytes of a row of w meet the same 8 columns of x.
//
// A block owns one chunk of at most 4096 columns and every `num_groups`-th tile of 16 rows. One warp keeps bulk copies of w under way
// into a ring of stages of 16 rows by 1024 columns, across tiles too. Each of the
// other NUM_WARPS warps multiplies its share of every stage's columns; the same columns of x stay in registers. Their sums are added in shared memory,
// in order; where the columns are split, the last block to arrive at a tile adds the chunks' sums, in order again, so that
// results do not vary from run to run.
// T is the type of y; TOKEN_TILES counts tiles of 8 rows of x; DEPTH counts the stages of the ring. For Hopper and later.
#include "ptx.cuh"

struct Matvec {
  const bf16* x;
  const bf16* weight;
  T* y;
  // (tiles, num_splits, tokens, tile_rows), where columns are split.
  float* partials;
  int64_t x_row_stride;
  int64_t weight_row_stride;
  int64_t y_row_stride;
  int32_t m;
  int32_t n;
  int32_t k;
  int32_t num_splits;
  // Columns of a chunk.
  int32_t chunk;
};

constexpr int num_warps = NUM_WARPS;
constexpr int threads = num_warps * 32;
constexpr int tile_rows = 16;
constexpr int tokens = 8 * TOKEN_TILES;
constexpr int tile_outputs = tile_rows * tokens;
constexpr int stage_columns = 1024;
constexpr int warp_columns = stage_columns / num_warps;
// Two products of the tensor cores take 32 columns.
constexpr int num_parts = warp_columns / 32;
constexpr int most_stages = 4;
// 16-byte packs from row to row of a stage; four more than there are, so that eight lanes reading two rows meet all banks.
constexpr int row_packs = stage_columns / 8 + 4;
constexpr int stage_packs = tile_rows * row_packs;
constexpr int most_tiles = 16384;
// Warps take turns at adding up.
constexpr int num_teams = threads / tile_outputs;

// Blocks that have added their chunk to a tile; zero again at the end of every launch.
__device__ uint32_t arrivals[most_tiles];

struct Block {
  int split, group, num_groups, num_tiles, begin, end, num_stages;
};

__device__ __forceinline__ void store_output(const Matvec& args, int tile, int i, float sum) {
  const int column = tile * tile_rows + i % tile_rows, token = i / tile_rows;
  if (column < args.n && token < args.m) args.y[token * args.y_row_stride + column] = from_float<T>(sum);
}

// What the copying warp does; a lane per row.
__device__ __forceinline__ void stream_weight(const Matvec& args, const Block& block, uint64_t* full, uint64_t* empty) {
#if __CUDA_ARCH__ >= 900
  const int lane = threadIdx.x & 31;
  const int64_t row_stride = args.weight_row_stride;
  // The weight may be what the previous kernel writes, so before its end only the coherent cache is filled.
  const int first_row = block.group * tile_rows + lane;
  if (lane < tile_rows && first_row < args.n)
    prefetch_bulk_l2(args.weight + first_row * row_stride + block.begin, (block.end - block.begin) * 2);
  wait_for_previous_kernel();
  int slot = 0;
  uint32_t parity = 1;
  for (int tile = block.group; tile < block.num_tiles; tile += block.num_groups) {
    const int num_rows = min(tile_rows, args.n - tile * tile_rows);
    const bf16* row = args.weight + (tile * tile_rows + lane) * row_stride;
    for (int s = 0; s < block.num_stages; s++) {
      const int column = block.begin + s * stage_columns;
      const uint32_t bytes = min(stage_columns, block.end - column) * 2;
      wait_for_phase(empty + slot, parity);
      if (lane == 0) arrive_expecting(full + slot, num_rows * bytes);
      __syncwarp();
      if (lane < num_rows)
        copy_bulk_async(dynamic_shared + slot * stage_packs + lane * row_packs, row + column, bytes, full + slot);
      if (++slot == DEPTH) {
        slot = 0;
        parity ^= 1;
      }
    }
  }
#endif
}

// What the multiplying warps do.
__device__ __forceinline__ void multiply(const Matvec& args, const Block& block, uint64_t* full, uint64_t* empty) {
#if __CUDA_ARCH__ >= 900
  __shared__ bool is_last[num_teams];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
  const int first_column = block.begin + warp * warp_columns + t * 8;
  wait_for_previous_kernel();
  uint4 x[most_stages][num_parts][TOKEN_TILES];
#pragma unroll
  for (int s = 0; s < most_stages; s++) {
#pragma unroll
    for (int part = 0; part < num_parts; part++) {
#pragma unroll
      for (int j = 0; j < TOKEN_TILES; j++) {
        const int column = first_column + s * stage_columns + part * 32, token = j * 8 + g;
        x[s][part][j] = uint4{0, 0, 0, 0};
        if (token < args.m && column < block.end)
          x[s][part][j] = *reinterpret_cast<const uint4*>(args.x + token * args.x_row_stride + column);
      }
    }
  }

  // Two turns, so that one barrier per tile is enough.
  float* sums_of_warps = reinterpret_cast<float*>(dynamic_shared + DEPTH * stage_packs);
  int slot = 0, turn = 0, team = 0;
  uint32_t parity = 0;
  for (int tile = block.group; tile < block.num_tiles; tile += block.num_groups) {
    float sums[TOKEN_TILES][4] = {};
#pragma unroll
    for (int s = 0; s < most_stages; s++) {
      if (s < block.num_stages) {
        const uint4* stage = dynamic_shared + slot * stage_packs + warp * (warp_columns / 8) + t;
        wait_for_phase(full + slot, parity);
        uint4 upper[num_parts], lower[num_parts];
#pragma unroll
        for (int part = 0; part < num_parts; part++) {
          // Beyond the end lies what an earlier stage left, which could be infinite.
          const bool is_inside = first_column + s * stage_columns + part * 32 < block.end;
          upper[part] = is_inside ? stage[g * row_packs + part * 4] : uint4{0, 0, 0, 0};
          lower[part] = is_inside ? stage[(g + 8) * row_packs + part * 4] : uint4{0, 0, 0, 0};
        }
        __syncwarp();
        if (lane == 0) arrive(empty + slot);
        if (++slot == DEPTH) {
          slot = 0;
          parity ^= 1;
        }
#pragma unroll
        for (int part = 0; part < num_parts; part++) {
          const uint32_t first[4] = {upper[part].x, lower[part].x, upper[part].y, lower[part].y};
          const uint32_t second[4] = {upper[part].z, lower[part].z, upper[part].w, lower[part].w};
#pragma unroll
          for (int j = 0; j < TOKEN_TILES; j++) multiply_add(sums[j], first, x[s][part][j].x, x[s][part][j].y);
#pragma unroll
          for (int j = 0; j < TOKEN_TILES; j++) multiply_add(sums[j], second, x[s][part][j].z, x[s][part][j].w);
        }
      }
    }
    float* turn_sums = sums_of_warps + turn * (num_warps * tile_outputs);
    float* own = turn_sums + warp * tile_outputs;
#pragma unroll
    for (int j = 0; j < TOKEN_TILES; j++) {
#pragma unroll
      for (int i = 0; i < 4; i++) own[(j * 8 + 2 * t + (i & 1)) * tile_rows + (i >> 1) * 8 + g] = sums[j][i];
    }
    turn ^= 1;
    const int present_team = team;
    if (++team == num_teams) team = 0;
    sync_threads<threads>(1);
    if (threadIdx.x / tile_outputs != present_team) continue;
    const int output = threadIdx.x % tile_outputs;
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < num_warps; w++) sum += turn_sums[w * tile_outputs + output];
    if (args.num_splits == 1) {
      store_output(args, tile, output, sum);
      continue;
    }
    float* tile_partials = args.partials + static_cast<int64_t>(tile) * args.num_splits * tile_outputs + output;
    tile_partials[block.split * tile_outputs] = sum;
    __threadfence();
    sync_threads<tile_outputs>(2 + present_team);
    if (output == 0) {
      is_last[present_team] = atomicAdd(&arrivals[tile], 1u) == static_cast<uint32_t>(args.num_splits - 1);
      if (is_last[present_team]) arrivals[tile] = 0;
      __threadfence();
    }
    sync_threads<tile_outputs>(2 + present_team);
    if (is_last[present_team]) {
      const volatile float* chunks = tile_partials;
      float total = 0.0f;
      for (int s = 0; s < args.num_splits; s++) total += chunks[s * tile_outputs];
      store_output(args, tile, output, total);
    }
  }
#endif
}

// Grid: num_splits times any number of groups. Needs 16-byte aligned x and weight, row strides and k of whole packs.
extern "C" __global__ void __launch_bounds__(threads + 32, 1) matvec(const __grid_constant__ Matvec args) {
#if __CUDA_ARCH__ >= 900
  __shared__ uint64_t full[DEPTH], empty[DEPTH];
  allow_next_kernel();
  Block block;
  block.split = blockIdx.x % args.num_splits;
  block.group = blockIdx.x / args.num_splits;
  block.num_groups = gridDim.x / args.num_splits;
  block.num_tiles = (args.n + tile_rows - 1) / tile_rows;
  block.begin = block.split * args.chunk;
  block.end = min(block.begin + args.chunk, args.k);
  block.num_stages = (block.end - block.begin + stage_columns - 1) / stage_columns;
  if (threadIdx.x == 0) {
    for (int slot = 0; slot < DEPTH; slot++) {
      init_barrier(full + slot, 1);
      init_barrier(empty + slot, num_warps);
    }
    publish_barriers();
  }
  __syncthreads();
  if (threadIdx.x >= threads) stream_weight(args, block, full, empty);
  else multiply(args, block, full, empty);
#endif
}
