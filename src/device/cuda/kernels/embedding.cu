// Rows of a table by token, the gradient of the table, and sums of rows by index. The gradient is deterministic without sorting on the host: rows are put in
// order of (token, row) by counting, for each row, the rows that come before it (N^2 comparisons, which is little beside reading
// dy); equal tokens then lie together in runs, and blocks add up runs within fixed chunks of that order. A run that crosses
// chunks leaves f32 partial sums, which a last launch adds in order.

constexpr int threads = 256;

// From and To are f32 or bf16. A token outside the table gives zeros. Needs nothing of alignment.
template <class From, class To>
__device__ __forceinline__ void gather(const int32_t* tokens, const From* weight, To* y, int64_t num_rows, int64_t width,
                                       int64_t vocab_size) {
  constexpr int count = Pack<From>::count;
  const bool uses_packs =
      sizeof(From) == sizeof(To) && width % count == 0 && is_aligned_16(weight) && is_aligned_16(y);
  for (int64_t row = blockIdx.x; row < num_rows; row += gridDim.x) {
    const int64_t token = tokens[row];
    const bool is_inside = token >= 0 && token < vocab_size;
    if constexpr (sizeof(From) == sizeof(To)) {
      if (uses_packs) {
#pragma unroll 4
        for (int64_t c = threadIdx.x * count; c < width; c += threads * count)
          store_pack(y + row * width + c, is_inside ? load_pack(weight + token * width + c) : Pack<To>{});
        continue;
      }
    }
    for (int64_t c = threadIdx.x; c < width; c += threads)
      y[row * width + c] = from_float<To>(is_inside ? to_float(weight[token * width + c]) : 0.0f);
  }
}
#define GATHER(name, From, To)                                                                            \
  extern "C" __global__ void __launch_bounds__(threads)                                                   \
      name(const int32_t* tokens, const From* weight, To* y, int64_t num_rows, int64_t width, int64_t v) { \
    begin_after_previous();                                                                               \
    gather(tokens, weight, y, num_rows, width, v);                                                        \
  }
GATHER(gather_f32_f32, float, float)
GATHER(gather_f32_bf16, float, bf16)
GATHER(gather_bf16_f32, bf16, float)
GATHER(gather_bf16_bf16, bf16, bf16)

// y[row] = the sum of the rows of x that sources[starts[row] .. starts[row + 1]] name, in that order. A source outside x adds nothing.
// Needs nothing of alignment.
template <class T>
__device__ __forceinline__ void sum_rows(const T* x, const int32_t* starts, const int32_t* sources, T* y, int64_t num_rows,
                                         int64_t width, int64_t num_sources) {
  constexpr int count = Pack<T>::count;
  const bool uses_packs = width % count == 0 && is_aligned_16(x) && is_aligned_16(y);
  for (int64_t row = blockIdx.x; row < num_rows; row += gridDim.x) {
    const int begin = starts[row], end = starts[row + 1];
    for (int64_t c = threadIdx.x * count; c < width; c += threads * count) {
      float sums[count] = {};
      for (int i = begin; i < end; i++) {
        const int64_t source = sources[i];
        if (source < 0 || source >= num_sources) continue;
        const T* values = x + source * width + c;
        float terms[count] = {};
        if (uses_packs) {
          unpack(load_pack(values), terms);
        } else {
          for (int j = 0; j < count && c + j < width; j++) terms[j] = to_float(values[j]);
        }
#pragma unroll
        for (int j = 0; j < count; j++) sums[j] += terms[j];
      }
      if (uses_packs) {
        store_pack(y + row * width + c, pack_of(sums));
      } else {
        for (int j = 0; j < count && c + j < width; j++) y[row * width + c + j] = from_float<T>(sums[j]);
      }
    }
  }
}
#define SUM_ROWS(name, T)                                                                                     \
  extern "C" __global__ void __launch_bounds__(threads)                                                       \
      name(const T* x, const int32_t* starts, const int32_t* sources, T* y, int64_t num_rows, int64_t width,  \
           int64_t num_sources) {                                                                             \
    begin_after_previous();                                                                                   \
    sum_rows(x, starts, sources, y, num_rows, width, num_sources);                                            \
  }
SUM_ROWS(sum_rows_f32, float)
SUM_ROWS(sum_rows_bf16, bf16)

// order[i] = the i-th row by (token, row).
extern "C" __global__ void __launch_bounds__(threads) order_rows(const int32_t* tokens, int32_t* order, int num_rows) {
  __shared__ int4 tile[threads];
  const int row = blockIdx.x * threads + threadIdx.x;
  const int own = row < num_rows ? tokens[row] : 0;
  int rank = 0;
  for (int start = 0; start < num_rows; start += 4 * threads) {
    int values[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int at = start + 4 * static_cast<int>(threadIdx.x) + i;
      values[i] = at < num_rows ? tokens[at] : 0x7fffffff;
    }
    __syncthreads();
    tile[threadIdx.x] = {values[0], values[1], values[2], values[3]};
    __syncthreads();
    // Before this row an equal token counts, after it not; tokens beyond the end are larger than all.
    const int num_before = larger(0, smaller(4 * threads, row - start)) / 4;
#pragma unroll 8
    for (int i = 0; i < num_before; i++) {
      const int4 others = tile[i];
      rank += (others.x <= own) + (others.y <= own) + (others.z <= own) + (others.w <= own);
    }
    int i = num_before;
    if (row >= start && row < start + 4 * threads) {
      const int4 others = tile[i++];
      const int offset = (row - start) & 3;
      rank += (offset > 0 ? others.x <= own : others.x < own) + (offset > 1 ? others.y <= own : others.y < own) +
              (offset > 2 ? others.z <= own : others.z < own) + (others.w < own);
    }
#pragma unroll 8
    for (; i < threads; i++) {
      const int4 others = tile[i];
      rank += (others.x < own) + (others.y < own) + (others.z < own) + (others.w < own);
    }
  }
  if (row < num_rows) order[rank] = row;
}

struct Scatter {
  const int32_t* tokens;
  const int32_t* order;
  const void* dy;
  void* dweight;
  // (chunks, 2, width): the run that began before the chunk, the run that goes on after it.
  float* partials;
  int64_t width;
  int64_t vocab_size;
  int num_rows;
  int chunk_rows;
  // 1: dy is bf16; 4: dweight is bf16.
  int flags;
};

__device__ __forceinline__ void add_to_table(const Scatter& args, int64_t token, int64_t column, float sum) {
  if (token < 0 || token >= args.vocab_size) return;
  const int64_t at = token * args.width + column;
  const bool is_bf16 = args.flags & 4;
  store_any(args.dweight, is_bf16, at, load_any(args.dweight, is_bf16, at) + sum);
}

// One block per chunk of the order and 256 * 2 columns.
extern "C" __global__ void __launch_bounds__(threads) add_runs(Scatter args) {
  int* rows = reinterpret_cast<int*>(dynamic_shared);
  int* ids = rows + args.chunk_rows;
  const int start = blockIdx.x * args.chunk_rows;
  const int end = smaller(args.num_rows, start + args.chunk_rows);
  for (int i = threadIdx.x; i < end - start; i += threads) {
    rows[i] = args.order[start + i];
    ids[i] = args.tokens[rows[i]];
  }
  __syncthreads();
  const int previous = start == 0 ? 0 : args.tokens[args.order[start - 1]];
  const int next = end == args.num_rows ? 0 : args.tokens[args.order[end]];
  const bool continues_previous = start > 0 && previous == ids[0];
  const bool goes_on = end < args.num_rows && next == ids[end - start - 1];
  for (int64_t column = int64_t(blockIdx.y) * threads + threadIdx.x; column < args.width; column += int64_t(gridDim.y) * threads) {
    float sum = 0.0f;
    bool is_first_run = true;
    for (int base = 0; base < end - start; base += 8) {
      float values[8];
#pragma unroll
      for (int i = 0; i < 8; i++)
        values[i] = base + i < end - start ? load_any(args.dy, args.flags & 1, rows[base + i] * args.width + column) : 0.0f;
#pragma unroll
      for (int i = 0; i < 8; i++) {
        const int at = base + i;
        if (at >= end - start) break;
        sum += values[i];
        const bool is_last = at == end - start - 1;
        if (!is_last && ids[at + 1] == ids[at]) continue;
        if (is_first_run && continues_previous) {
          args.partials[(blockIdx.x * 2ll) * args.width + column] = sum;
        } else if (is_last && goes_on) {
          args.partials[(blockIdx.x * 2ll + 1) * args.width + column] = sum;
        } else {
          add_to_table(args, ids[at], column, sum);
        }
        is_first_run = false;
        sum = 0.0f;
      }
    }
  }
}

// One block per chunk in which a run begins that later chunks go on with.
extern "C" __global__ void __launch_bounds__(threads) add_crossing_runs(Scatter args) {
  const int start = blockIdx.x * args.chunk_rows, end = start + args.chunk_rows;
  if (end >= args.num_rows) return;
  const int token = args.tokens[args.order[end - 1]];
  if (args.tokens[args.order[end]] != token) return;
  // A run that began before this chunk belongs to that chunk.
  if (start > 0 && args.tokens[args.order[start]] == token && args.tokens[args.order[start - 1]] == token) return;
  int last = blockIdx.x + 1;
  while ((last + 1ll) * args.chunk_rows < args.num_rows && args.tokens[args.order[(last + 1) * args.chunk_rows]] == token)
    last++;
  for (int64_t column = int64_t(blockIdx.y) * threads + threadIdx.x; column < args.width; column += int64_t(gridDim.y) * threads) {
    float sum = args.partials[(blockIdx.x * 2ll + 1) * args.width + column];
#pragma unroll 4
    for (int chunk = blockIdx.x + 1; chunk <= last; chunk++) sum += args.partials[(chunk * 2ll) * args.width + column];
    add_to_table(args, token, column, sum);
  }
}
