/*
 * Rows of a table by token, the gradient of the table, and sums of rows by index.
 *
 * The gradient sorts the rows by token first: each row of the table is then summed in f32 by one thread, in row order, and
 * rounded once.
 */
#include <algorithm>

#include "vector.h"

namespace nt {
namespace {

bool are_below(int64_t bound, const int32_t* indices, int64_t count) {
  for (int64_t i = 0; i < count; i++)
    if (indices[i] < 0 || indices[i] >= bound) return false;
  return true;
}

/* Columns that one task sums at once: in the first-level cache. */
constexpr int64_t block_columns = 1024;
/* Rows of dy that a task takes, up to the end of a token's run. */
constexpr int64_t rows_per_task = 64;

struct SortedRows {
  const uint64_t* keys; /* token << 32 | row, ascending */
  int64_t num_rows;

  int64_t token(int64_t i) const { return static_cast<int64_t>(keys[i] >> 32); }
  int64_t row(int64_t i) const { return static_cast<int64_t>(keys[i] & 0xffffffffu); }
  /* The first place from `i` on where a token's run begins. */
  int64_t run_begin(int64_t i) const {
    while (i > 0 && i < num_rows && token(i) == token(i - 1)) i++;
    return min(i, num_rows);
  }
};

template <class T>
void add_runs(const nt_embedding_backward_args& args, const SortedRows& rows, int64_t begin, int64_t end, int64_t first,
              int64_t last) {
  const Elements<T> dy(args.dy), dweight(args.dweight);
  alignas(64) float sums[block_columns];
  for (int64_t i = begin; i < end;) {
    const int64_t token = rows.token(i);
    std::memset(sums, 0, sizeof(sums));
    for (; i < end && rows.token(i) == token; i++) {
      const int64_t at = rows.row(i) * args.width;
      for_vectors(first, last, [&](int64_t c, auto lanes) NT_INLINE {
        float* sum = sums + (c - first);
        store_vec(sum, load_vec(sum, lanes) + dy.load(at + c, lanes), lanes);
      });
    }
    for_vectors(first, last, [&](int64_t c, auto lanes) NT_INLINE {
      const int64_t place = token * args.width + c;
      dweight.store(place, dweight.load(place, lanes) + load_vec(sums + (c - first), lanes), lanes);
    });
  }
}

}  // namespace

NT_OP(embedding_forward) {
  if (args.tokens.dtype != i32) return unsupported;
  const int32_t* tokens = data<int32_t>(args.tokens);
  const int32_t status = dispatch_elements({args.weight, args.y}, [](auto) {});
  if (status != ok) return status;
  if (!are_below(args.vocab_size, tokens, args.num_rows)) return bad_argument;
  const int64_t columns = args.width, grain = max<int64_t>(1, pointwise_grain / max<int64_t>(columns, 1));
  return dispatch_elements({args.weight, args.y}, [&](auto tag) {
    const Elements<typename decltype(tag)::type> weight(args.weight), y(args.y);
    parallel_for(args.num_rows, grain, [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; row++) {
        const int64_t from = tokens[row] * columns, to = row * columns;
        for_vectors(0, columns, [&](int64_t c, auto lanes) NT_INLINE { y.store(to + c, weight.load(from + c, lanes), lanes); });
      }
    });
  });
}

NT_OP(embedding_backward) {
  if (args.tokens.dtype != i32) return unsupported;
  const int32_t status = dispatch_elements({args.dy, args.dweight}, [](auto) {});
  if (status != ok) return status;
  const int32_t* tokens = data<int32_t>(args.tokens);
  if (args.num_rows > INT32_MAX || !are_below(args.vocab_size, tokens, args.num_rows)) return bad_argument;
  uint64_t* keys = static_cast<uint64_t*>(shared_scratch(0, 8 * max<int64_t>(args.num_rows, 1)));
  if (keys == nullptr) return out_of_memory;
  for (int64_t row = 0; row < args.num_rows; row++)
    keys[row] = static_cast<uint64_t>(tokens[row]) << 32 | static_cast<uint64_t>(row);
  std::sort(keys, keys + args.num_rows);
  const SortedRows rows{keys, args.num_rows};
  const int64_t num_row_tasks = ceil_div(args.num_rows, rows_per_task);
  const int64_t num_column_tasks = ceil_div(args.width, block_columns);
  return dispatch_elements({args.dy, args.dweight}, [&](auto tag) {
    parallel_tasks(num_row_tasks * num_column_tasks, [&](int64_t task, int) {
      const int64_t part = task / num_column_tasks, first = task % num_column_tasks * block_columns;
      const int64_t begin = rows.run_begin(part * rows_per_task);
      const int64_t end = rows.run_begin(min((part + 1) * rows_per_task, args.num_rows));
      add_runs<typename decltype(tag)::type>(args, rows, begin, end, first, min(first + block_columns, args.width));
    });
  });
}

NT_OP(sum_rows) {
  if (args.starts.dtype != i32 || args.sources.dtype != i32 || args.x.dtype != args.y.dtype) return unsupported;
  const int32_t status = dispatch_elements({args.x, args.y}, [](auto) {});
  if (status != ok) return status;
  const int32_t* starts = data<int32_t>(args.starts);
  const int32_t* sources = data<int32_t>(args.sources);
  for (int64_t row = 0; row < args.num_rows; row++)
    if (starts[row] < 0 || starts[row] > starts[row + 1]) return bad_argument;
  if (!are_below(args.num_sources, sources, starts[args.num_rows])) return bad_argument;
  const int64_t grain = max<int64_t>(1, pointwise_grain / max<int64_t>(args.width, 1));
  return dispatch_elements({args.x, args.y}, [&](auto tag) {
    const Elements<typename decltype(tag)::type> x(args.x), y(args.y);
    parallel_for(args.num_rows, grain, [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; row++) {
        for_vectors(0, args.width, [&](int64_t c, auto lanes) NT_INLINE {
          vec sum{};
          for (int32_t i = starts[row]; i < starts[row + 1]; i++) sum += x.load(sources[i] * args.width + c, lanes);
          y.store(row * args.width + c, sum, lanes);
        });
      }
    });
  });
}

}  // namespace nt
