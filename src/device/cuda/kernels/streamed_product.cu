// y = x w^T for a few rows of x (m, k) and a weight w (n, k), both bf16 or both codes of E4M3 with a scale for each row: bound by reading w once.
// The tensor cores take the rows of w as the tall operand, so that up to TOKENS rows of x cost what one does.
//
// One block lives on every multiprocessor and fills most of its shared memory; as soon as it ends, one of the next such kernel takes its place. It
// owns tiles of up to 64 GROUPS rows of w, as high as shares the rows out evenly. One warp keeps copies of stages of w under way into a ring, another
// those of x; the other warps, in groups of four, multiply 64 rows each. Where rows are too few for every multiprocessor, a cluster of blocks shares a
// tile, each with a chunk of the columns: their sums meet in shared memory and are added in order, so that results hang neither on time nor on the
// number of rows of x.
//
// Where the weight is known not to be what the previous kernels write, its first stages are read before those kernels have ended: the
// memory works through the norms and the attention between two products, and through the starting and ending of kernels.
// Sums of E4M3 are cut off by the tensor cores after some 14 bits: they are added up in f32 stage by stage.
// T is the type of y, E that of x and w. For Hopper alone.
#include "ptx.cuh"

struct StreamedProduct {
  TileMap weight;
  TileMap x;
  T* y;
  int64_t y_row_stride;
  // Of E4M3: what the sums are multiplied by, (n) and (m), and what is added to them, (n) or null.
  const float* weight_scales;
  const float* x_scales;
  const void* bias;
  int32_t bias_is_bf16;
  int32_t m;
  int32_t n;
  // Boxes of 128 bytes of each row: of the matrices, of a block, and of a stage of the ring.
  int32_t num_boxes;
  int32_t chunk_boxes;
  int32_t stage_boxes;
  // Rows of a tile of the weight.
  int32_t tile_rows;
  // Stages of the ring.
  int32_t depth;
  // Nothing that is still running can write the weight.
  int32_t is_weight_settled;
  // Stages under way at the most while the previous kernels run, whose own reads would wait behind more.
  int32_t num_ahead;
};

constexpr int num_multiplying = 128 * GROUPS;
constexpr int num_threads = num_multiplying + 64;
constexpr bool has_codes = sizeof(E) == 1;
constexpr int box_row_bytes = 128;
constexpr int x_box_bytes = TOKENS * box_row_bytes;
constexpr int most_stages = 32;
// Floats from token to token of the sums: eight rows of four lanes' tokens meet all banks.
constexpr int sums_stride = 64 * GROUPS + 4;
constexpr int most_splits = 4;

#if __CUDA_ARCH__ == 900

// Where a block is in the ring.
struct Place {
  int slot = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void advance(int depth) {
    if (++slot == depth) {
      slot = 0;
      parity ^= 1;
    }
  }
};

// The block's part of the work.
struct Share {
  SharedAddress stages;
  // Barriers of the ring's stages: w is there, x is there, both are read.
  uint64_t* full_weight;
  uint64_t* full_x;
  uint64_t* empty;
  int first_tile, tile_step, num_tiles, first_box, num_stages, weight_bytes, x_bytes, weight_box_bytes, weight_stage_bytes, stage_bytes;
};

// What the thread that copies w does.
__device__ __forceinline__ void stream_weight(const StreamedProduct& args, const Share& share, volatile bool* is_previous_done) {
  if (!args.is_weight_settled) wait_for_previous_kernel();
  Place place{0, 1}, behind;
  int num_started = 0;
  for (int tile = share.first_tile; tile < share.num_tiles; tile += share.tile_step) {
    for (int stage = 0; stage < share.num_stages; stage++) {
      wait_for_phase(share.empty + place.slot, place.parity);
      arrive_expecting(share.full_weight + place.slot, share.weight_bytes);
      copy_tile_async(share.stages + place.slot * share.stage_bytes, args.weight, tile * args.tile_rows,
                      share.first_box + stage * args.stage_boxes, share.full_weight + place.slot, evict_first);
      place.advance(args.depth);
      if (++num_started >= args.num_ahead && args.is_weight_settled && !*is_previous_done) {
        wait_for_phase(share.full_weight + behind.slot, behind.parity);
        behind.advance(args.depth);
      }
    }
  }
}

// What the thread that copies x does.
__device__ __forceinline__ void stream_x(const StreamedProduct& args, const Share& share, volatile bool* is_previous_done) {
  wait_for_previous_kernel();
  *is_previous_done = true;
  Place place{0, 1};
  for (int tile = share.first_tile; tile < share.num_tiles; tile += share.tile_step) {
    for (int stage = 0; stage < share.num_stages; stage++) {
      wait_for_phase(share.empty + place.slot, place.parity);
      arrive_expecting(share.full_x + place.slot, share.x_bytes);
      copy_tile_async(share.stages + place.slot * share.stage_bytes + share.weight_stage_bytes, args.x, 0,
                      share.first_box + stage * args.stage_boxes, share.full_x + place.slot, evict_last);
      place.advance(args.depth);
    }
  }
}

// Starts the products of a stage.
__device__ __forceinline__ void start_products(const StreamedProduct& args, const Share& share, SharedAddress own, SharedAddress start,
                                               float (&sums)[TOKENS / 2]) {
  begin_products();
  for (int box = 0; box < args.stage_boxes; box++) {
    const uint64_t a = factor(own + start + box * share.weight_box_bytes);
    const uint64_t b = factor(share.stages + start + share.weight_stage_bytes + box * x_box_bytes);
#pragma unroll
    for (int part = 0; part < box_row_bytes / 32; part++) {
      if constexpr (has_codes) multiply_add_group_e4m3(sums, a + 2 * part, b + 2 * part);
      else multiply_add_group_bf16(sums, a + 2 * part, b + 2 * part);
    }
  }
  commit_products();
}

// What the other warps do for a tile: sums of 64 rows of w and all rows of x. Rows beyond the tile's are others' bytes, and not stored.
__device__ __forceinline__ void multiply(const StreamedProduct& args, const Share& share, Place& place, float (&sums)[TOKENS / 2]) {
  const SharedAddress own = share.stages + (threadIdx.x >> 7) * (64 * box_row_bytes);
  int previous = -1;
  for (int stage = 0; stage < share.num_stages; stage++) {
    const SharedAddress start = place.slot * share.stage_bytes;
    wait_for_phase(share.full_x + place.slot, place.parity);
    wait_for_phase(share.full_weight + place.slot, place.parity);
    if constexpr (has_codes) {
      float part[TOKENS / 2] = {};
      start_products(args, share, own, start, part);
      wait_for_products<0>();
      if ((threadIdx.x & 127) == 0) arrive(share.empty + place.slot);
#pragma unroll
      for (int i = 0; i < TOKENS / 2; i++) sums[i] += part[i];
    } else {
      start_products(args, share, own, start, sums);
      wait_for_products<1>();
      // The stage before is read.
      if (previous >= 0 && (threadIdx.x & 127) == 0) arrive(share.empty + previous);
      previous = place.slot;
    }
    place.advance(args.depth);
  }
  if constexpr (!has_codes) {
    wait_for_products<0>();
    if (previous >= 0 && (threadIdx.x & 127) == 0) arrive(share.empty + previous);
  }
}

// What element i of a lane's sums belongs to.
__device__ __forceinline__ int row_of(int i) { return (threadIdx.x >> 5) * 16 + (i >> 1 & 1) * 8 + (threadIdx.x & 31) / 4; }
__device__ __forceinline__ int token_of(int i) { return (i >> 2) * 8 + 2 * (threadIdx.x & 3) + (i & 1); }

// Stores the result of row `row` of w and a row of x, after all earlier kernels.
__device__ __forceinline__ void store_result(const StreamedProduct& args, int row, int token, float sum) {
  if constexpr (has_codes) {
    sum = sum * args.x_scales[token] * args.weight_scales[row];
    if (args.bias != nullptr) sum += load_any(args.bias, args.bias_is_bf16 != 0, row);
  }
  args.y[token * args.y_row_stride + row] = from_float<T>(sum);
}

__device__ __forceinline__ void store_sums(const StreamedProduct& args, int first_row, const float (&sums)[TOKENS / 2]) {
#pragma unroll
  for (int i = 0; i < TOKENS / 2; i++) {
    const int row = row_of(i), token = token_of(i);
    if (row < args.tile_rows && first_row + row < args.n && token < args.m) store_result(args, first_row + row, token, sums[i]);
  }
}

// Adds the sums of the cluster's blocks, (TOKENS, 64 GROUPS) in the shared memory of each, and stores this block's part of the rows.
__device__ __forceinline__ void store_part(const StreamedProduct& args, int first_row, SharedAddress sums, int num_splits, int split) {
  const int num_rows = args.tile_rows / num_splits;
  for (int i = threadIdx.x; i < args.m * num_rows; i += num_threads) {
    const int token = i / num_rows, row = split * num_rows + i % num_rows;
    const SharedAddress address = sums + (token * sums_stride + row) * 4;
    float part[most_splits];
#pragma unroll
    for (int s = 0; s < most_splits; s++) part[s] = s < num_splits ? load_from_block(address, s) : 0.0f;
    float total = part[0];
#pragma unroll
    for (int s = 1; s < most_splits; s++) total += part[s];
    if (first_row + row < args.n) store_result(args, first_row + row, token, total);
  }
}

#endif

// Grid: a block per multiprocessor; or a cluster per tile of rows, with as many blocks as chunks of columns. Registers for two blocks: the
// norms' blocks of 512 threads, which need half of all, find room beside one.
extern "C" __global__ void __launch_bounds__(num_threads, 2) streamed_product(const __grid_constant__ StreamedProduct args) {
#if __CUDA_ARCH__ == 900
  __shared__ uint64_t full_weight[most_stages], full_x[most_stages], empty[most_stages];
  __shared__ bool is_previous_done;
  const int num_splits = cluster_size(), split = cluster_rank();
  Share share;
  // The swizzle repeats every 1,024 bytes.
  share.stages = (shared_address(dynamic_shared) + 1023) & ~1023u;
  share.full_weight = full_weight;
  share.full_x = full_x;
  share.empty = empty;
  share.first_tile = blockIdx.x / num_splits;
  share.tile_step = gridDim.x / num_splits;
  share.num_tiles = (args.n + args.tile_rows - 1) / args.tile_rows;
  share.first_box = split * args.chunk_boxes;
  share.num_stages = (max(0, min(args.chunk_boxes, args.num_boxes - share.first_box)) + args.stage_boxes - 1) / args.stage_boxes;
  share.weight_box_bytes = (args.tile_rows + 7) / 8 * 1024;
  share.weight_stage_bytes = args.stage_boxes * share.weight_box_bytes;
  share.weight_bytes = args.stage_boxes * args.tile_rows * box_row_bytes;
  share.x_bytes = args.stage_boxes * x_box_bytes;
  share.stage_bytes = share.weight_stage_bytes + share.x_bytes;
  if (threadIdx.x == num_multiplying) {
    for (int slot = 0; slot < args.depth; slot++) {
      init_barrier(full_weight + slot, 1);
      init_barrier(full_x + slot, 1);
      init_barrier(empty + slot, GROUPS);
    }
    is_previous_done = false;
    publish_barriers();
  }
  __syncthreads();
  allow_next_kernel();
  if (threadIdx.x >= num_multiplying) {
    if (threadIdx.x == num_multiplying) stream_weight(args, share, &is_previous_done);
    if (threadIdx.x == num_multiplying + 32) stream_x(args, share, &is_previous_done);
    __syncwarp();
  } else {
    Place place;
    for (int tile = share.first_tile; tile < share.num_tiles; tile += share.tile_step) {
      float sums[TOKENS / 2] = {};
      multiply(args, share, place, sums);
      // What still runs of earlier kernels may read what lies in y.
      wait_for_previous_kernel();
      if (num_splits == 1) {
        store_sums(args, tile * args.tile_rows, sums);
        continue;
      }
      // The block's only tile: once all are done with the ring, it holds the sums.
      sync_threads<num_multiplying>(1);
      float* own = reinterpret_cast<float*>(reinterpret_cast<char*>(dynamic_shared) + (share.stages - shared_address(dynamic_shared)));
#pragma unroll
      for (int i = 0; i < TOKENS / 2; i++) own[token_of(i) * sums_stride + row_of(i)] = sums[i];
    }
  }
  wait_for_previous_kernel();
  if (num_splits > 1) {
    sync_cluster();
    store_part(args, share.first_tile * args.tile_rows, share.stages, num_splits, split);
    // Others read this block's sums.
    sync_cluster();
  }
#endif
}
