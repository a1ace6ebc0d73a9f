// Products of bf16 matrices with one dimension of at most RANKS (a multiple of 16), as adapters of low rank make them; bound by the one
// pass over their large matrix. Three forms, with n at most RANKS unless said otherwise:
//   thin_down      c (m, n) = a (m, k) op(b)        streams a
//   thin_up        c (m, n) += a (m, k) op(b)       streams c; k at most RANKS
//   thin_gradient  c = a^T b over many rows         streams a or b, whichever is wide
// and thin_backward does one of the first and one of the last form from one reading of the matrix that they share.
// c = alpha product + beta c, added up in f32 and rounded once. Sums have one fixed order: chunks go to partial sums, which thin_finish
// adds up in order. Sizes but the number of rows are multiples of 8, and rows begin at multiples of 16 bytes.

constexpr int threads = 256;
constexpr int num_warps = threads / 32;
constexpr int rank_blocks = RANKS / 16;

// Rows in shared memory lie 16 bytes further apart than they are long: the eight rows of a matrix load then meet all banks.
constexpr int row_padding = 8;
constexpr int thin_stride = RANKS + row_padding;

__device__ __forceinline__ SharedAddress element(SharedAddress base, int index) { return base + index * 2; }

// ---- c (m, n) = a op(b) ----

constexpr int down_rows = num_warps * 16;
constexpr int down_columns = 64;
constexpr int down_depth = 4;
constexpr int down_stride = down_columns + row_padding;
constexpr int down_thin_elements = larger(RANKS * down_stride, down_columns * thin_stride);
constexpr int down_stage_elements = down_rows * down_stride + down_thin_elements;

struct Down {
  const bf16* a;
  const bf16* b;
  void* c;
  // (splits, m, n), where there are several splits.
  float* partials;
  int64_t m, k, lda, ldb, ldc;
  // Columns of a split, a multiple of down_columns.
  int64_t chunk;
  int32_t n, c_is_bf16;
  float alpha, beta;
};

// Grid: blocks of down_rows rows, then splits.
template <bool b_is_transposed>
__device__ __forceinline__ void multiply_down(const Down& p) {
  begin_after_previous();
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int64_t first_row = blockIdx.x * int64_t(down_rows);
  const int64_t begin = blockIdx.y * p.chunk, end = smaller(begin + p.chunk, p.k);
  const int num_stages = static_cast<int>(ceil_div<int64_t>(end - begin, down_columns));
  const SharedAddress shared = shared_address(dynamic_shared);

  const auto start_copies = [&](int stage) {
    if (stage < num_stages) {
      const SharedAddress wide = element(shared, stage % down_depth * down_stage_elements);
      const SharedAddress thin = element(wide, down_rows * down_stride);
      const int64_t first = begin + stage * int64_t(down_columns);
#pragma unroll
      for (int i = threadIdx.x; i < down_rows * down_columns / 8; i += threads) {
        const int row = i / (down_columns / 8), piece = i % (down_columns / 8);
        const int64_t column = first + piece * 8;
        const bool is_inside = first_row + row < p.m && column < end;
        copy_16_async(element(wide, row * down_stride + piece * 8),
                      is_inside ? p.a + (first_row + row) * p.lda + column : p.a, is_inside);
      }
      constexpr int pieces = b_is_transposed ? down_columns / 8 : RANKS / 8;
      constexpr int lines = b_is_transposed ? RANKS : down_columns;
      for (int i = threadIdx.x; i < lines * pieces; i += threads) {
        const int line = i / pieces, piece = i % pieces;
        const int64_t inner = first + (b_is_transposed ? piece * 8 : line);
        const int outer = b_is_transposed ? line : piece * 8;
        const bool is_inside = inner < end && outer < p.n;
        const int64_t offset = b_is_transposed ? outer * p.ldb + inner : inner * p.ldb + outer;
        copy_16_async(element(thin, line * (b_is_transposed ? down_stride : thin_stride) + piece * 8),
                      is_inside ? p.b + offset : p.b, is_inside);
      }
    }
    commit_copies();
  };

  float sums[rank_blocks][2][4] = {};
#pragma unroll
  for (int stage = 0; stage < down_depth - 1; stage++) start_copies(stage);
  for (int stage = 0; stage < num_stages; stage++) {
    wait_for_copies<down_depth - 2>();
    __syncthreads();
    start_copies(stage + down_depth - 1);
    const SharedAddress wide = element(shared, stage % down_depth * down_stage_elements);
    const SharedAddress thin = element(wide, down_rows * down_stride);
#pragma unroll
    for (int step = 0; step < down_columns; step += 16) {
      uint32_t rows[4];
      load_matrices(rows, element(wide, (warp * 16 + (lane & 15)) * down_stride + step + (lane >> 4) * 8));
#pragma unroll
      for (int block = 0; block < rank_blocks; block++) {
        uint32_t columns[4];
        if (b_is_transposed) {
          const int line = block * 16 + (lane & 7) + (lane >> 4) * 8;
          load_matrices(columns, element(thin, line * down_stride + step + ((lane >> 3) & 1) * 8));
        } else {
          const int line = step + (lane & 7) + ((lane >> 3) & 1) * 8;
          load_matrices_transposed(columns, element(thin, line * thin_stride + block * 16 + (lane >> 4) * 8));
        }
        multiply_add(sums[block][0], rows, columns[0], columns[1]);
        multiply_add(sums[block][1], rows, columns[2], columns[3]);
      }
    }
  }

  const int g = lane >> 2, t = lane & 3;
#pragma unroll
  for (int block = 0; block < rank_blocks; block++)
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int64_t row = first_row + warp * 16 + g + (i >> 1) * 8;
        const int column = block * 16 + half * 8 + 2 * t + (i & 1);
        if (row >= p.m || column >= p.n) continue;
        const float sum = sums[block][half][i];
        if (gridDim.y > 1) {
          p.partials[(blockIdx.y * p.m + row) * p.n + column] = sum;
          continue;
        }
        const int64_t place = row * p.ldc + column;
        const float kept = p.beta == 0.0f ? 0.0f : p.beta * load_any(p.c, p.c_is_bf16 != 0, place);
        store_any(p.c, p.c_is_bf16 != 0, place, p.alpha * sum + kept);
      }
}

extern "C" __global__ void __launch_bounds__(threads, 2) thin_down(const __grid_constant__ Down p) {
  multiply_down<false>(p);
}
extern "C" __global__ void __launch_bounds__(threads, 2) thin_down_transposed(const __grid_constant__ Down p) {
  multiply_down<true>(p);
}

// ---- c (m, n) = alpha a op(b) + beta c, k at most RANKS ----
// The order of columns within 32, and of inner indices within 16, is free as long as all operands have the same: it is such that a lane
// holds eight neighbours of a row of c, and four of a row of a.

constexpr int up_group = 32;
constexpr int up_groups = 2;
constexpr int up_column_warps = 4;
constexpr int up_row_warps = num_warps / up_column_warps;
constexpr int up_columns = up_column_warps * up_groups * up_group;
constexpr int up_tiles = 8;
constexpr int up_rows = up_row_warps * up_tiles * 16;

struct Up {
  const bf16* a;
  const bf16* b;
  bf16* c;
  int64_t m, n, lda, ldb, ldc;
  int32_t k, unused;
  float alpha, beta;
};

// Grid: blocks of up_columns columns, then of up_rows rows.
template <bool b_is_transposed>
__device__ __forceinline__ void multiply_up(const Up& p) {
  begin_after_previous();
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
  const int64_t first_column = blockIdx.x * int64_t(up_columns) + warp % up_column_warps * (up_groups * up_group);
  const int64_t first_row = blockIdx.y * int64_t(up_rows) + warp / up_column_warps * (up_tiles * 16);

  uint32_t factors[rank_blocks][up_groups][4][2];
#pragma unroll
  for (int block = 0; block < rank_blocks; block++)
#pragma unroll
    for (int group = 0; group < up_groups; group++) {
      const int inner = block * 16 + 4 * t;
      const int64_t column = first_column + group * up_group + 8 * (g >> 1);
      const bool is_inside = inner < p.k && column < p.n;
      if (b_is_transposed) {
#pragma unroll
        for (int j = 0; j < 4; j++) {
          uint2 raw = {0, 0};
          if (is_inside) raw = *reinterpret_cast<const uint2*>(p.b + (column + 2 * j + (g & 1)) * p.ldb + inner);
          factors[block][group][j][0] = raw.x;
          factors[block][group][j][1] = raw.y;
        }
      } else {
        uint32_t raw[4][4] = {};
#pragma unroll
        for (int i = 0; i < 4; i++)
          if (is_inside) {
            const uint4 line = *reinterpret_cast<const uint4*>(p.b + (inner + i) * p.ldb + column);
            raw[i][0] = line.x, raw[i][1] = line.y, raw[i][2] = line.z, raw[i][3] = line.w;
          }
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
          for (int i = 0; i < 2; i++) {
            const uint32_t low = raw[2 * i][j], high = raw[2 * i + 1][j];
            factors[block][group][j][i] = (g & 1) != 0 ? upper_halves(low, high) : (low & 0xffffu) | high << 16;
          }
      }
    }

  // Two at a time spill registers at 64 ranks.
#pragma unroll (RANKS > 48 ? 1 : 2)
  for (int tile = 0; tile < up_tiles; tile++) {
    const int64_t row = first_row + tile * 16 + g;
    if (first_row + tile * 16 >= p.m) break;
    uint4 previous[up_groups][2];
    if (p.beta != 0.0f) {
#pragma unroll
      for (int group = 0; group < up_groups; group++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
          const int64_t column = first_column + group * up_group + 8 * t;
          previous[group][half] = {0, 0, 0, 0};
          if (row + half * 8 < p.m && column < p.n)
            previous[group][half] = load_16_streaming(p.c + (row + half * 8) * p.ldc + column);
        }
    }
    float sums[up_groups][4][4] = {};
#pragma unroll
    for (int block = 0; block < rank_blocks; block++) {
      const int inner = block * 16 + 4 * t;
      uint2 raw[2] = {{0, 0}, {0, 0}};
#pragma unroll
      for (int half = 0; half < 2; half++)
        if (row + half * 8 < p.m && inner < p.k)
          raw[half] = *reinterpret_cast<const uint2*>(p.a + (row + half * 8) * p.lda + inner);
      const uint32_t rows[4] = {raw[0].x, raw[1].x, raw[0].y, raw[1].y};
#pragma unroll
      for (int group = 0; group < up_groups; group++)
#pragma unroll
        for (int j = 0; j < 4; j++)
          multiply_add(sums[group][j], rows, factors[block][group][j][0], factors[block][group][j][1]);
    }
#pragma unroll
    for (int group = 0; group < up_groups; group++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int64_t column = first_column + group * up_group + 8 * t;
        if (row + half * 8 >= p.m || column >= p.n) continue;
        float values[8];
#pragma unroll
        for (int i = 0; i < 8; i++) values[i] = p.alpha * sums[group][i >> 1][2 * half + (i & 1)];
        if (p.beta != 0.0f) {
          float kept[8];
          unpack(as_pack<bf16>(previous[group][half]), kept);
#pragma unroll
          for (int i = 0; i < 8; i++) values[i] += p.beta * kept[i];
        }
        store_pack(p.c + (row + half * 8) * p.ldc + column, pack_of(values));
      }
  }
}

extern "C" __global__ void __launch_bounds__(threads, 2) thin_up(const __grid_constant__ Up p) { multiply_up<false>(p); }
extern "C" __global__ void __launch_bounds__(threads, 2) thin_up_transposed(const __grid_constant__ Up p) {
  multiply_up<true>(p);
}

// ---- sums over rows: a stage is some rows of the wide matrix, and of the thin one behind them ----

template <int rows, int columns>
constexpr int stage_elements = rows * (columns + row_padding + thin_stride);

// A matrix of which rows from `first` up to `end` count, and columns from `first_column` up to `width`.
struct Rows {
  const bf16* matrix;
  int64_t stride, first, end, first_column, width;
};

// Starts the copies of a part of a stage; zeros for what does not count.
template <int rows, int columns>
__device__ __forceinline__ void copy_rows(SharedAddress target, const Rows& p) {
#pragma unroll
  for (int i = threadIdx.x; i < rows * columns / 8; i += threads) {
    const int row = i / (columns / 8), piece = i % (columns / 8);
    const int64_t column = p.first_column + piece * 8;
    const bool is_inside = p.first + row < p.end && column < p.width;
    copy_16_async(element(target, row * (columns + row_padding) + piece * 8),
                  is_inside ? p.matrix + (p.first + row) * p.stride + column : p.matrix, is_inside);
  }
}

// Stores what a warp has of a split's (rank, width): 16 ranks by 8 columns an element of the inner array.
template <int tiles>
__device__ __forceinline__ void store_ranks(float* partials, const float (&sums)[rank_blocks][tiles][4], int64_t first_column, int rank_end,
                                            int64_t width) {
  const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
#pragma unroll
  for (int block = 0; block < rank_blocks; block++)
#pragma unroll
    for (int j = 0; j < tiles; j++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int rank = block * 16 + g + half * 8;
        const int64_t column = first_column + j * 8 + 2 * t;
        if (rank >= rank_end || column >= width) continue;
        float* place = partials + rank * width + column;
        *reinterpret_cast<uint2*>(place) = {__float_as_uint(sums[block][j][2 * half]),
                                            __float_as_uint(sums[block][j][2 * half + 1])};
      }
}

// ---- thin^T wide over rows ----

constexpr int gradient_columns = num_warps * 32;
constexpr int gradient_rows = 32;
constexpr int gradient_depth = 4;
constexpr int gradient_stride = gradient_columns + row_padding;
constexpr int gradient_stage_elements = stage_elements<gradient_rows, gradient_columns>;

struct Gradient {
  const bf16* thin;
  const bf16* wide;
  // (splits, rank, width)
  float* partials;
  int64_t num_rows, width, thin_row_stride, wide_row_stride;
  // Rows of a split, a multiple of gradient_rows.
  int64_t chunk;
  int32_t rank, unused;
};

// Grid: blocks of gradient_columns columns, then splits.
extern "C" __global__ void __launch_bounds__(threads, 2) thin_gradient(const __grid_constant__ Gradient p) {
  begin_after_previous();
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int64_t first_column = blockIdx.x * int64_t(gradient_columns);
  const int64_t begin = blockIdx.y * p.chunk, end = smaller(begin + p.chunk, p.num_rows);
  const int num_stages = static_cast<int>(ceil_div<int64_t>(end - begin, gradient_rows));
  const SharedAddress shared = shared_address(dynamic_shared);

  const auto start_copies = [&](int stage) {
    if (stage < num_stages) {
      const SharedAddress wide = element(shared, stage % gradient_depth * gradient_stage_elements);
      const SharedAddress thin = element(wide, gradient_rows * gradient_stride);
      const int64_t first = begin + stage * int64_t(gradient_rows);
      copy_rows<gradient_rows, gradient_columns>(wide, {p.wide, p.wide_row_stride, first, end, first_column, p.width});
      copy_rows<gradient_rows, RANKS>(thin, {p.thin, p.thin_row_stride, first, end, 0, p.rank});
    }
    commit_copies();
  };

  float sums[rank_blocks][4][4] = {};
#pragma unroll
  for (int stage = 0; stage < gradient_depth - 1; stage++) start_copies(stage);
  for (int stage = 0; stage < num_stages; stage++) {
    wait_for_copies<gradient_depth - 2>();
    __syncthreads();
    start_copies(stage + gradient_depth - 1);
    const SharedAddress wide = element(shared, stage % gradient_depth * gradient_stage_elements);
    const SharedAddress thin = element(wide, gradient_rows * gradient_stride);
#pragma unroll
    for (int step = 0; step < gradient_rows; step += 16) {
      uint32_t columns[2][4];
#pragma unroll
      for (int pair = 0; pair < 2; pair++) {
        const int row = step + (lane & 7) + ((lane >> 3) & 1) * 8;
        load_matrices_transposed(columns[pair],
                                 element(wide, row * gradient_stride + warp * 32 + pair * 16 + (lane >> 4) * 8));
      }
#pragma unroll
      for (int block = 0; block < rank_blocks; block++) {
        uint32_t ranks[4];
        const int row = step + (lane & 7) + (lane >> 4) * 8;
        load_matrices_transposed(ranks, element(thin, row * thin_stride + block * 16 + ((lane >> 3) & 1) * 8));
#pragma unroll
        for (int j = 0; j < 4; j++)
          multiply_add(sums[block][j], ranks, columns[j >> 1][(j & 1) * 2], columns[j >> 1][(j & 1) * 2 + 1]);
      }
    }
  }

  store_ranks(p.partials + int64_t(blockIdx.y) * p.rank * p.width, sums, first_column + warp * 32, p.rank, p.width);
}

#if RANKS <= 32
// ---- of y = scale low b^T: dy b and dy^T low from one reading of dy ----

constexpr int backward_columns = num_warps * 64;
constexpr int backward_rows = 16;
constexpr int backward_depth = 4;
constexpr int backward_stride = backward_columns + row_padding;
constexpr int backward_stage_elements = stage_elements<backward_rows, backward_columns>;
constexpr int backward_sums = backward_rows * RANKS;

struct Backward {
  const bf16* dy;
  const bf16* low;
  const bf16* b;
  // (column blocks, rows, rank)
  float* low_partials;
  // (splits, rank, width)
  float* b_partials;
  int64_t num_rows, width, dy_row_stride, low_row_stride;
  // Rows of a split, a multiple of backward_rows.
  int64_t chunk;
  int32_t rank, unused;
};

// Grid: blocks of backward_columns columns, then splits. A warp holds its 64 columns of b in registers; what the warps make of a row of dy
// meets in shared memory, where a stage later each sum is added up by one thread.
extern "C" __global__ void __launch_bounds__(threads, 1) thin_backward(const __grid_constant__ Backward p) {
  begin_after_previous();
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
  const int64_t first_column = blockIdx.x * int64_t(backward_columns);
  const int64_t begin = blockIdx.y * p.chunk, end = smaller(begin + p.chunk, p.num_rows);
  const int num_stages = static_cast<int>(ceil_div<int64_t>(end - begin, backward_rows));
  const SharedAddress shared = shared_address(dynamic_shared);
  // Two of (warps, rows, ranks), by turns.
  float* sums = reinterpret_cast<float*>(reinterpret_cast<bf16*>(dynamic_shared) + backward_depth * backward_stage_elements);

  const auto start_copies = [&](int stage) {
    if (stage < num_stages) {
      const SharedAddress wide = element(shared, stage % backward_depth * backward_stage_elements);
      const SharedAddress thin = element(wide, backward_rows * backward_stride);
      const int64_t first = begin + stage * int64_t(backward_rows);
      copy_rows<backward_rows, backward_columns>(wide, {p.dy, p.dy_row_stride, first, end, first_column, p.width});
      copy_rows<backward_rows, RANKS>(thin, {p.low, p.low_row_stride, first, end, 0, p.rank});
    }
    commit_copies();
  };
  const auto add_up = [&](int stage) {
    const float* from = sums + (stage & 1) * num_warps * backward_sums;
    for (int i = threadIdx.x; i < backward_sums; i += threads) {
      const int64_t row = begin + stage * int64_t(backward_rows) + i / RANKS;
      const int rank = i % RANKS;
      float total = 0.0f;
#pragma unroll
      for (int w = 0; w < num_warps; w++) total += from[w * backward_sums + i];
      if (row < end && rank < p.rank) p.low_partials[(blockIdx.x * p.num_rows + row) * p.rank + rank] = total;
    }
  };

  // [16 columns][8 ranks][fragment]
  uint32_t factors[4][2 * rank_blocks][2];
#pragma unroll
  for (int step = 0; step < 4; step++)
#pragma unroll
    for (int tile = 0; tile < 2 * rank_blocks; tile++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int64_t column = first_column + warp * 64 + step * 16 + half * 8 + 2 * t;
        const int rank = tile * 8 + g;
        uint32_t low = 0, high = 0;
        if (column < p.width && rank < p.rank) {
          low = p.b[column * p.rank + rank].bits;
          high = p.b[(column + 1) * p.rank + rank].bits;
        }
        factors[step][tile][half] = low | high << 16;
      }

  float db[rank_blocks][8][4] = {};
#pragma unroll
  for (int stage = 0; stage < backward_depth - 1; stage++) start_copies(stage);
  for (int stage = 0; stage < num_stages; stage++) {
    wait_for_copies<backward_depth - 2>();
    __syncthreads();
    start_copies(stage + backward_depth - 1);
    if (stage > 0) add_up(stage - 1);
    const SharedAddress wide = element(shared, stage % backward_depth * backward_stage_elements);
    const SharedAddress thin = element(wide, backward_rows * backward_stride);
    float dlow[2 * rank_blocks][4] = {};
    uint32_t ranks[rank_blocks][4];
#pragma unroll
    for (int block = 0; block < rank_blocks; block++) {
      const int row = (lane & 7) + (lane >> 4) * 8;
      load_matrices_transposed(ranks[block], element(thin, row * thin_stride + block * 16 + ((lane >> 3) & 1) * 8));
    }
#pragma unroll
    for (int step = 0; step < 4; step++) {
      // By rows for dy b; the same 16 x 16 by columns for dy^T low.
      uint32_t rows[4], columns[4];
      const SharedAddress tile = element(wide, (lane & 15) * backward_stride + warp * 64 + step * 16 + (lane >> 4) * 8);
      load_matrices(rows, tile);
      load_matrices_transposed(columns, tile);
#pragma unroll
      for (int i = 0; i < 2 * rank_blocks; i++) multiply_add(dlow[i], rows, factors[step][i][0], factors[step][i][1]);
#pragma unroll
      for (int block = 0; block < rank_blocks; block++) {
        multiply_add(db[block][2 * step], ranks[block], columns[0], columns[1]);
        multiply_add(db[block][2 * step + 1], ranks[block], columns[2], columns[3]);
      }
    }
    float* own = sums + ((stage & 1) * num_warps + warp) * backward_sums;
#pragma unroll
    for (int i = 0; i < 2 * rank_blocks; i++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const uint2 pair = {__float_as_uint(dlow[i][2 * half]), __float_as_uint(dlow[i][2 * half + 1])};
        *reinterpret_cast<uint2*>(own + (g + half * 8) * RANKS + i * 8 + 2 * t) = pair;
      }
  }
  __syncthreads();
  if (num_stages > 0) add_up(num_stages - 1);

  store_ranks(p.b_partials + int64_t(blockIdx.y) * p.rank * p.width, db, first_column + warp * 64, p.rank, p.width);
}
#endif

// ---- c[i, j] = alpha (the sum of the splits' partials[i, j]) + beta c[i, j] ----

struct Sums {
  // (splits, rows, width)
  const float* partials;
  void* c;
  int64_t num_rows, width, row_stride, column_stride;
  int32_t num_splits, c_is_bf16;
  float alpha, beta;
};

struct Finish {
  Sums sums[2];
};

// Grid: elements by threads, then which of the sums.
extern "C" __global__ void __launch_bounds__(threads) thin_finish(const __grid_constant__ Finish finish) {
  begin_after_previous();
  const Sums& p = finish.sums[blockIdx.y];
  const int64_t num_elements = p.num_rows * p.width;
  const int64_t i = blockIdx.x * int64_t(threads) + threadIdx.x;
  if (i >= num_elements) return;
  float sum = 0.0f;
#pragma unroll 4
  for (int split = 0; split < p.num_splits; split++) sum += p.partials[split * num_elements + i];
  const int64_t place = i / p.width * p.row_stride + i % p.width * p.column_stride;
  const bool is_bf16 = p.c_is_bf16 != 0;
  const float kept = p.beta == 0.0f ? 0.0f : p.beta * load_any(p.c, is_bf16, place);
  store_any(p.c, is_bf16, place, p.alpha * sum + kept);
}
