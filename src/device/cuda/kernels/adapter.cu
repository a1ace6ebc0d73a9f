// What adapters need beside matrix products: dropout, products of elements, scaled columns and their gradient, norms of rows, and rows of
// virtual tokens. f32 and bf16 mix freely (flag bits name the bf16 operands). Bound by memory; the sums have a fixed order.
#include "philox.cuh"

constexpr int threads = 256;
constexpr int column_threads = 32;
constexpr int row_threads = 8;

__device__ __forceinline__ int64_t global_thread() { return int64_t(blockIdx.x) * threads + threadIdx.x; }
__device__ __forceinline__ int64_t num_global_threads() { return int64_t(gridDim.x) * threads; }

// Flags: 1 x, 4 y. A thread takes the four elements of one Philox block.
extern "C" __global__ void __launch_bounds__(threads)
    dropout(const void* x, void* y, int64_t num_elements, int flags, int64_t seed, int64_t counter, float probability,
            float kept) {
  const bool x_bf16 = flags & 1, y_bf16 = flags & 4;
  const bool is_aligned = is_quad_aligned(x, x_bf16) && is_quad_aligned(y, y_bf16);
  const int64_t num_blocks = ceil_div<int64_t>(num_elements, 4);
  for (int64_t block = global_thread(); block < num_blocks; block += num_global_threads()) {
    const uint4 drawn = philox(seed, counter + block);
    const uint32_t words[4] = {drawn.x, drawn.y, drawn.z, drawn.w};
    const bool is_whole = is_aligned && block * 4 + 4 <= num_elements;
    float values[4] = {};
    if (is_whole) {
      decode_quad(load_quad(x, x_bf16, block), x_bf16, values);
    } else {
      for (int j = 0; j < 4; j++)
        if (block * 4 + j < num_elements) values[j] = load_any(x, x_bf16, block * 4 + j);
    }
#pragma unroll
    for (int j = 0; j < 4; j++) values[j] = uniform_from_bits(words[j]) < probability ? 0.0f : values[j] * kept;
    if (is_whole) {
      store_quad(y, y_bf16, block, values);
    } else {
      for (int j = 0; j < 4; j++)
        if (block * 4 + j < num_elements) store_any(y, y_bf16, block * 4 + j, values[j]);
    }
  }
}

// Flags: 1 a, 2 b, 4 y.
extern "C" __global__ void __launch_bounds__(threads)
    multiply(const void* a, const void* b, void* y, int64_t num_elements, int flags) {
  for (int64_t i = global_thread(); i < num_elements; i += num_global_threads())
    store_any(y, flags & 4, i, load_any(a, flags & 1, i) * load_any(b, flags & 2, i));
}

// Flags: 1 x, 2 scale, 4 y, 8 divisor (may be null). Blocks of 32 x 8 threads; a block takes 32 columns and rows_per_block rows.
extern "C" __global__ void __launch_bounds__(column_threads* row_threads)
    scale_columns(const void* x, const void* scale, const void* divisor, void* y, int64_t num_rows, int64_t width,
                  int64_t x_stride, int64_t y_stride, int64_t rows_per_block, int flags) {
  const int64_t column = int64_t(blockIdx.x) * column_threads + threadIdx.x;
  if (column >= width) return;
  // Equal scale and divisor change nothing, to the last bit.
  float factor = load_any(scale, flags & 2, column);
  if (divisor != nullptr) factor /= load_any(divisor, flags & 8, column);
  const int64_t end = smaller(num_rows, (blockIdx.y + 1ll) * rows_per_block);
  for (int64_t row = blockIdx.y * rows_per_block + threadIdx.y; row < end; row += row_threads)
    store_any(y, flags & 4, row * y_stride + column, load_any(x, flags & 1, row * x_stride + column) * factor);
}

// partials[blockIdx.y, c] = the sum of a b over the block's rows. Flags: 1 a, 2 b.
extern "C" __global__ void __launch_bounds__(column_threads* row_threads)
    column_dot(const void* a, const void* b, float* partials, int64_t num_rows, int64_t width, int64_t a_stride,
               int64_t b_stride, int64_t rows_per_block, int flags) {
  __shared__ float sums[row_threads][column_threads];
  const int64_t column = int64_t(blockIdx.x) * column_threads + threadIdx.x;
  const int64_t end = smaller(num_rows, (blockIdx.y + 1ll) * rows_per_block);
  float total = 0.0f;
  if (column < width) {
    for (int64_t row = blockIdx.y * rows_per_block + threadIdx.y; row < end; row += row_threads)
      total += load_any(a, flags & 1, row * a_stride + column) * load_any(b, flags & 2, row * b_stride + column);
  }
  sums[threadIdx.y][threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.y != 0 || column >= width) return;
  float sum = 0.0f;
#pragma unroll
  for (int j = 0; j < row_threads; j++) sum += sums[j][threadIdx.x];
  partials[blockIdx.y * width + column] = sum;
}

// y[c] = beta y[c] + (sum of the partials) / divisor[c]. Flags: 4 y, 8 divisor (may be null).
extern "C" __global__ void __launch_bounds__(threads)
    finish_column_dot(const float* partials, const void* divisor, void* y, int64_t num_partials, int64_t width, int flags,
                      float beta) {
  const int64_t column = global_thread();
  if (column >= width) return;
  float total = 0.0f;
  for (int64_t row = 0; row < num_partials; row++) total += partials[row * width + column];
  if (divisor != nullptr) total /= load_any(divisor, flags & 8, column);
  if (beta != 0.0f) total += beta * load_any(y, flags & 4, column);
  store_any(y, flags & 4, column, total);
}

// One block per row. Flags: 1 x, 4 norms.
extern "C" __global__ void __launch_bounds__(threads) row_norms(const void* x, void* norms, int64_t width, int flags) {
  __shared__ float scratch[32];
  float total = 0.0f;
  for (int64_t c = threadIdx.x; c < width; c += threads) {
    const float value = load_any(x, flags & 1, blockIdx.x * width + c);
    total += value * value;
  }
  total = block_sum(total, scratch);
  if (threadIdx.x == 0) store_any(norms, flags & 4, blockIdx.x, sqrtf(total));
}

// One block per row; a token outside both tables gives zeros. T is the type of all.
extern "C" __global__ void __launch_bounds__(threads)
    prompt_gather_T(const int32_t* tokens, const T* weight, const T* prompt, T* y, int64_t width, int64_t vocab_size,
                    int64_t prompt_length) {
  const int64_t token = tokens[blockIdx.x];
  const bool is_virtual = token >= vocab_size;
  const bool is_inside = token >= 0 && token < vocab_size + prompt_length;
  const T* source = is_virtual ? prompt + (token - vocab_size) * width : weight + token * width;
  T* target = y + blockIdx.x * width;
  for (int64_t c = threadIdx.x; c < width; c += threads) target[c] = is_inside ? source[c] : from_float<T>(0.0f);
}

// Block (x, y) owns virtual token x and 256 columns; it walks the rows in order. Flags: 1 dy, 4 dprompt.
extern "C" __global__ void __launch_bounds__(threads)
    prompt_scatter(const int32_t* tokens, const void* dy, void* dprompt, int64_t num_rows, int64_t width, int64_t vocab_size,
                   int flags) {
  __shared__ int32_t tile[threads];
  const int64_t wanted = vocab_size + blockIdx.x;
  const int64_t column = int64_t(blockIdx.y) * threads + threadIdx.x;
  float total = 0.0f;
  for (int64_t first = 0; first < num_rows; first += threads) {
    tile[threadIdx.x] = first + threadIdx.x < num_rows ? tokens[first + threadIdx.x] : -1;
    __syncthreads();
    for (int i = 0; i < threads; i++)
      if (tile[i] == wanted && column < width) total += load_any(dy, flags & 1, (first + i) * width + column);
    __syncthreads();
  }
  if (column >= width) return;
  const int64_t place = blockIdx.x * width + column;
  store_any(dprompt, flags & 4, place, load_any(dprompt, flags & 4, place) + total);
}
