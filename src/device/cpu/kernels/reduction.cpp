/*
 * Sums: of all elements, of their squares, of columns.
 *
 * Each is cut into blocks whose size does not depend on the thread count; their partial sums are added in order, so the result
 * does not depend on it either.
 */
#include "vector.h"

namespace nt {
namespace {

constexpr int64_t block_elements = 1 << 16;

template <bool squares>
inline NT_INLINE dvec term(dvec x) {
  if constexpr (squares) return x * x;
  else return x;
}

template <bool squares, class T>
double exact_sum(const T* x, int64_t count) {
  double total = 0;
  for (int64_t i = 0; i < count; i++) {
    const double value = load(x + i);
    total += squares ? value * value : value;
  }
  return total;
}

template <bool squares>
double block_sum(const float* x, int64_t count) {
  constexpr int chains = 4;
  dvec sums[chains] = {};
  int64_t i = 0;
  for (; i + chains * double_width <= count; i += chains * double_width)
    unrolled<chains>([&](auto c) NT_INLINE { sums[c] += term<squares>(load_doubles(x + i + c * double_width)); });
  return sum_of((sums[0] + sums[1]) + (sums[2] + sums[3])) + exact_sum<squares>(x + i, count - i);
}

/* The squares of bf16 numbers are exact in f32, and short runs of them lose little: f64 for each would be slower than the memory. */
template <bool squares>
double block_sum(const bf16* x, int64_t count) {
  constexpr int run = 8;
  dvec sums{};
  int64_t i = 0;
  for (; i + run * width <= count; i += run * width) {
    vec parts[2] = {};
    unrolled<run>([&](auto c) NT_INLINE {
      const vec value = load_vec(x + i + c * width);
      parts[c % 2] += squares ? value * value : value;
    });
    alignas(64) float lanes[width];
    store_vec(lanes, parts[0] + parts[1]);
    sums += load_doubles(lanes) + load_doubles(lanes + double_width);
  }
  const double total = sum_of(sums) + exact_sum<squares>(x + i, count - i);
  /* Squares out of the range of f32. */
  if (squares && !(total > 1e-30 && total < 1e37)) return exact_sum<squares>(x, count);
  return total;
}

template <bool squares>
int32_t add_to(const nt_tensor& x, const nt_tensor& accumulator, int64_t num_elements) {
  if (accumulator.dtype != f64) return unsupported;
  return dispatch_float(x.dtype, [&](auto tag) -> int32_t {
    using T = typename decltype(tag)::type;
    const T* values = data<T>(x);
    const int64_t num_blocks = ceil_div(num_elements, block_elements);
    double* partial = static_cast<double*>(shared_scratch(0, 8 * num_blocks));
    if (num_blocks > 0 && partial == nullptr) return out_of_memory;
    parallel_for(num_blocks, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t block = begin; block < end; block++) {
        const int64_t first = block * block_elements;
        partial[block] = block_sum<squares>(values + first, min(block_elements, num_elements - first));
      }
    });
    double total = 0;
    for (int64_t block = 0; block < num_blocks; block++) total += partial[block];
    *data<double>(accumulator) += total;
    return ok;
  });
}

/* Rows and columns of a block of columnSum: its sums stay in the first-level cache. */
constexpr int64_t block_rows = 64, block_columns = 4096;

}  // namespace

NT_OP(sum) { return add_to<false>(args.x, args.accumulator, args.num_elements); }

NT_OP(sum_of_squares) { return add_to<true>(args.x, args.accumulator, args.num_elements); }

NT_OP(column_sum) {
  const int64_t num_row_blocks = ceil_div(args.num_rows, block_rows), columns = args.width;
  float* partial = static_cast<float*>(shared_scratch(0, 4 * max<int64_t>(num_row_blocks, 1) * columns));
  if (partial == nullptr && columns > 0) return out_of_memory;
  return dispatch_elements({args.x, args.y}, [&](auto tag) {
    const Elements<typename decltype(tag)::type> x(args.x), y(args.y);
    const int64_t num_column_blocks = ceil_div(columns, block_columns);
    parallel_tasks(num_row_blocks * num_column_blocks, [&](int64_t task, int) {
      const int64_t row_block = task / num_column_blocks, first = task % num_column_blocks * block_columns;
      const int64_t last = min(first + block_columns, columns), end = min((row_block + 1) * block_rows, args.num_rows);
      float* sums = partial + row_block * columns;
      std::memset(sums + first, 0, static_cast<size_t>(last - first) * sizeof(float));
      for (int64_t row = row_block * block_rows; row < end; row++) {
        for_vectors(first, last, [&](int64_t c, auto lanes) NT_INLINE {
          store_vec(sums + c, load_vec(sums + c, lanes) + x.load(row * columns + c, lanes), lanes);
        });
      }
    });
    const vec beta = broadcast(static_cast<float>(args.beta));
    parallel_for(columns, 1024, [&](int64_t begin, int64_t end, int) {
      for_vectors(begin, end, [&](int64_t c, auto lanes) NT_INLINE {
        vec total = args.beta == 0 ? vec{} : beta * y.load(c, lanes);
        for (int64_t block = 0; block < num_row_blocks; block++) total += load_vec(partial + block * columns + c, lanes);
        y.store(c, total, lanes);
      });
    });
  });
}

}  // namespace nt
