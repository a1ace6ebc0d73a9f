// sum, sumOfSquares, clipCoefficient and columnSum. Sums over everything take two launches: each block adds a fixed share in f64
// (single packs in f32 first, because f64 units are few), then one block adds the partial results in order. Sums over columns go
// through f32 partial rows, which norm_backward.cu also leaves behind. Entries named *_T read elements of type T.

constexpr int threads = 256;
constexpr int packs_per_step = 4;

template <bool squares>
__device__ __forceinline__ float term(float x) {
  return squares ? x * x : x;
}

template <bool squares>
__device__ __forceinline__ void sum_share(const T* x, double* partials, int64_t num_elements) {
  constexpr int count = Pack<T>::count;
  __shared__ double scratch[32];
  const int64_t num_packs = is_aligned_16(x) ? num_elements / count : 0;
  const int64_t num_threads = int64_t(gridDim.x) * threads;
  const int64_t thread = int64_t(blockIdx.x) * threads + threadIdx.x;
  double total = 0.0;
  for (int64_t first = int64_t(blockIdx.x) * threads * packs_per_step + threadIdx.x; first < num_packs;
       first += num_threads * packs_per_step) {
    Pack<T> packs[packs_per_step];
#pragma unroll
    for (int i = 0; i < packs_per_step; i++) {
      const int64_t pack = first + i * threads;
      packs[i] = pack < num_packs ? load_pack_streaming(x + pack * count) : Pack<T>{};
    }
#pragma unroll
    for (int i = 0; i < packs_per_step; i++) {
      float values[count], sum = 0.0f;
      unpack(packs[i], values);
#pragma unroll
      for (int j = 0; j < count; j++) sum += term<squares>(values[j]);
      total += static_cast<double>(sum);
    }
  }
  for (int64_t i = num_packs * count + thread; i < num_elements; i += num_threads)
    total += static_cast<double>(term<squares>(to_float(x[i])));
  total = block_sum(total, scratch);
  if (threadIdx.x == 0) partials[blockIdx.x] = total;
}

extern "C" __global__ void __launch_bounds__(threads) sum_T(const T* x, double* partials, int64_t num_elements) {
  sum_share<false>(x, partials, num_elements);
}
extern "C" __global__ void __launch_bounds__(threads)
    sum_of_squares_T(const T* x, double* partials, int64_t num_elements) {
  sum_share<true>(x, partials, num_elements);
}

// accumulator[0] += the partial sums. One block.
extern "C" __global__ void __launch_bounds__(threads)
    add_partials(const double* partials, double* accumulator, int num_partials) {
  __shared__ double scratch[32];
  double total = 0.0;
  for (int i = threadIdx.x; i < num_partials; i += threads) total += partials[i];
  total = block_sum(total, scratch);
  if (threadIdx.x == 0) accumulator[0] += total;
}

extern "C" __global__ void clip_coefficient(const double* sum_of_squares, float* norm, float* coefficient,
                                            double gradient_scale, double max_norm, double skip_above_norm) {
  const double length = gradient_scale * sqrt(sum_of_squares[0]);
  // The norm counts as it is stored.
  const bool is_skipped = !isfinite(static_cast<float>(length)) || (skip_above_norm > 0.0 && length > skip_above_norm);
  const double factor = max_norm == 0.0 ? 1.0 : fmin(1.0, max_norm / (length + 1e-6));
  norm[0] = static_cast<float>(length);
  coefficient[0] = is_skipped ? not_a_number : static_cast<float>(gradient_scale * factor);
}

// ---- columns ----
// Blocks of 32 x 8 threads; a thread owns `columns` neighbouring columns.

constexpr int column_threads = 32;
constexpr int row_threads = 8;

template <int columns>
__device__ __forceinline__ void sum_rows(const T* x, float* partials, int64_t num_rows, int64_t width, int64_t rows_per_block) {
  __shared__ float sums[row_threads][column_threads * columns];
  const int64_t column = (int64_t(blockIdx.x) * column_threads + threadIdx.x) * columns;
  const int64_t row_end = smaller(num_rows, (blockIdx.y + 1ll) * rows_per_block);
  float total[columns] = {};
  if (column < width) {
#pragma unroll 4
    for (int64_t row = blockIdx.y * rows_per_block + threadIdx.y; row < row_end; row += row_threads) {
      if constexpr (columns == 1) {
        total[0] += to_float(x[row * width + column]);
      } else {
        float values[columns];
        unpack(load_pack_streaming(x + row * width + column), values);
#pragma unroll
        for (int i = 0; i < columns; i++) total[i] += values[i];
      }
    }
  }
#pragma unroll
  for (int i = 0; i < columns; i++) sums[threadIdx.y][threadIdx.x * columns + i] = total[i];
  __syncthreads();
  const int64_t first_column = int64_t(blockIdx.x) * column_threads * columns;
  for (int i = threadIdx.y * column_threads + threadIdx.x; i < column_threads * columns; i += column_threads * row_threads) {
    if (first_column + i >= width) break;
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < row_threads; j++) sum += sums[j][i];
    partials[blockIdx.y * width + first_column + i] = sum;
  }
}

extern "C" __global__ void __launch_bounds__(column_threads* row_threads)
    sum_rows_packs_T(const T* x, float* partials, int64_t num_rows, int64_t width, int64_t rows_per_block) {
  sum_rows<Pack<T>::count>(x, partials, num_rows, width, rows_per_block);
}
extern "C" __global__ void __launch_bounds__(column_threads* row_threads)
    sum_rows_singles_T(const T* x, float* partials, int64_t num_rows, int64_t width, int64_t rows_per_block) {
  sum_rows<1>(x, partials, num_rows, width, rows_per_block);
}

// y[c] = beta y[c] + sum of partials[row, c] over the rows, in f32 or bf16; y is not read with beta = 0.
extern "C" __global__ void __launch_bounds__(column_threads* row_threads)
    finish_columns(const float* partials, void* y, int64_t num_partials, int64_t width, int y_is_bf16, float beta) {
  __shared__ float sums[row_threads][column_threads];
  const int64_t column = int64_t(blockIdx.x) * column_threads + threadIdx.x;
  float total = 0.0f;
  if (column < width) {
#pragma unroll 8
    for (int64_t row = threadIdx.y; row < num_partials; row += row_threads) total += partials[row * width + column];
  }
  sums[threadIdx.y][threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.y != 0 || column >= width) return;
  float sum = beta == 0.0f ? 0.0f : beta * load_any(y, y_is_bf16, column);
#pragma unroll
  for (int j = 0; j < row_threads; j++) sum += sums[j][threadIdx.x];
  store_any(y, y_is_bf16, column, sum);
}
