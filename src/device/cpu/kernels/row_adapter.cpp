/*
 * Low-rank additions chosen row by row: products with a, in f32, and those with b, added to y with one rounding. Rows of one adapter
 * that stand together find its matrices in the cache.
 */
#include "matmul_dots.h"

namespace nt {
namespace {

/* Rows of x, and outputs, of one task. */
constexpr int64_t rows_per_task = 8;
constexpr int64_t outputs_per_task = 256;
/* Lines whose sums are added up together. */
constexpr int lines = width;

/* sums[i] = line i of a matrix times x; lines beyond `count` are left out. */
template <class T, class X>
void dot_lines(const T* matrix, int64_t length, int64_t count, const X* x, float* sums) {
  vec sum[lines] = {};
  for (int64_t i = 0; i < count; i++) {
    vec total = {};
    for_vectors(0, length, [&](int64_t k, auto lanes) NT_INLINE {
      total = fused(load_vec(matrix + i * length + k, lanes), load_vec(x + k, lanes), total);
    });
    sum[i] = total;
  }
  gemm::sum_lanes(sum, sums);
}

template <class T>
void multiply_by_a(const nt_adapter_down_args& args) {
  const int32_t* slots = data<int32_t>(args.slots);
  parallel_tasks(ceil_div(args.num_rows, rows_per_task), [&](int64_t task, int) {
    const int64_t end = min((task + 1) * rows_per_task, args.num_rows);
    for (int64_t row = task * rows_per_task; row < end; row++) {
      if (slots[row] < 0) continue;
      const T* a = data<T>(args.a) + slots[row] * args.rank * args.width;
      const T* x = data<T>(args.x) + row * args.x_row_stride;
      for (int64_t r = 0; r < args.rank; r += lines) {
        const int64_t count = min<int64_t>(lines, args.rank - r);
        float sums[lines];
        dot_lines(a + r * args.width, args.width, count, x, sums);
        std::memcpy(data<float>(args.low) + row * args.rank + r, sums, static_cast<size_t>(count) * sizeof(float));
      }
    }
  });
}

/* Outputs `first` to `last`, of one part, of a row. */
template <class T, class Out>
void add_part(const T* b, int64_t rank, const float* low, float scale, Out* y, int64_t first, int64_t last) {
  for (int64_t j = first; j < last; j += lines) {
    const int64_t count = min<int64_t>(lines, last - j);
    float sums[lines];
    dot_lines(b + j * rank, rank, count, low, sums);
    for (int64_t i = 0; i < count; i++) store(y + j + i, load(y + j + i) + scale * sums[i]);
  }
}

template <class T, class Out>
void add_product_with_b(const nt_adapter_up_args& args) {
  const int32_t* slots = data<int32_t>(args.slots);
  const int64_t starts[4] = {0, args.second_start, args.third_start, args.width};
  const int64_t num_stretches = ceil_div(args.width, outputs_per_task);
  parallel_tasks(num_stretches * ceil_div(args.num_rows, rows_per_task), [&](int64_t task, int) {
    const int64_t first = task % num_stretches * outputs_per_task, last = min(first + outputs_per_task, args.width);
    const int64_t begin = task / num_stretches * rows_per_task, end = min(begin + rows_per_task, args.num_rows);
    for (int64_t row = begin; row < end; row++) {
      if (slots[row] < 0) continue;
      const T* b = data<T>(args.b) + slots[row] * args.width * args.rank;
      Out* y = data<Out>(args.y) + row * args.y_row_stride;
      for (int64_t part = 0; part < args.num_parts; part++) {
        const float scale = data<float>(args.scales)[slots[row] * args.num_parts + part];
        const float* low = data<float>(args.low) + (row * args.num_parts + part) * args.rank;
        add_part(b, args.rank, low, scale, y, max(first, starts[part]), min(last, starts[part + 1]));
      }
    }
  });
}

template <class Args>
bool has_known_slots(const Args& args) {
  for (int64_t row = 0; row < args.num_rows; row++)
    if (data<int32_t>(args.slots)[row] >= args.num_slots) return false;
  return true;
}

}  // namespace
}  // namespace nt

NT_OP(adapter_down) {
  using namespace nt;
  if (args.a.dtype != args.x.dtype || args.low.dtype != f32 || args.slots.dtype != i32) return unsupported;
  return dispatch_float(args.x.dtype, [&](auto tag) -> int32_t {
    if (args.num_rows < 0 || args.rank < 0 || !has_known_slots(args)) return bad_argument;
    multiply_by_a<typename decltype(tag)::type>(args);
    return ok;
  });
}

NT_OP(adapter_up) {
  using namespace nt;
  if (args.low.dtype != f32 || args.scales.dtype != f32 || args.slots.dtype != i32) return unsupported;
  return dispatch_float(args.b.dtype, [&](auto tag) -> int32_t {
    return dispatch_float(args.y.dtype, [&](auto out) -> int32_t {
      if (args.num_rows < 0 || args.rank < 0 || args.num_parts < 1 || args.num_parts > 3 || !has_known_slots(args))
        return bad_argument;
      add_product_with_b<typename decltype(tag)::type, typename decltype(out)::type>(args);
      return ok;
    });
  });
}
