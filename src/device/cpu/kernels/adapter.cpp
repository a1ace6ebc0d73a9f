/*
 * What adapters need beside matrix products: dropout, products of elements, scaled columns and their gradient, norms of rows, and rows of
 * virtual tokens. All are bound by memory.
 */
#include "philox.h"
#include "vector.h"

namespace nt {
namespace {

constexpr int64_t per_step = 4 * width; /* elements of one vector of counters */

/* Elements of a row block of columnDot; its sums stay in the first-level cache. */
constexpr int64_t block_rows = 64, block_columns = 2048;

int64_t row_grain(int64_t columns) { return max<int64_t>(1, pointwise_grain / max<int64_t>(columns, 1)); }

/* 1 / (1 - probability) or 0 for elements 4 * block .. 4 * block + per_step - 1. */
NT_INLINE inline void drop_factors(uint64_t seed, uint64_t counter, float probability, float kept, float* out) {
  uvec words[4];
  philox(seed, counter, words);
  alignas(64) float lanes[4][width];
  for (int word = 0; word < 4; word++)
    store_vec(lanes[word], uniform(words[word]) < probability ? vec{} : broadcast(kept));
  for (int i = 0; i < width; i++)
    for (int word = 0; word < 4; word++) out[4 * i + word] = lanes[word][i];
}

}  // namespace

NT_OP(dropout) {
  return dispatch_elements({args.x, args.y}, [&](auto tag) {
    const Elements<typename decltype(tag)::type> x(args.x), y(args.y);
    const float probability = static_cast<float>(args.probability);
    const float kept = static_cast<float>(1 / (1 - args.probability));
    parallel_for(args.num_elements, pointwise_grain, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; i += per_step) {
        alignas(64) float factors[per_step];
        drop_factors(static_cast<uint64_t>(args.seed), static_cast<uint64_t>(args.counter + i / 4), probability, kept, factors);
        for_vectors(0, min(per_step, end - i), [&](int64_t j, auto lanes) NT_INLINE {
          const vec factor = load_vec(factors + j, lanes);
          y.store(i + j, factor == 0.0f ? vec{} : x.load(i + j, lanes) * factor, lanes);
        });
      }
    });
  });
}

NT_OP(multiply) {
  return dispatch_elements({args.a, args.b, args.y}, [&](auto tag) {
    const Elements<typename decltype(tag)::type> a(args.a), b(args.b), y(args.y);
    parallel_for(args.num_elements, pointwise_grain, [&](int64_t begin, int64_t end, int) {
      for_vectors(begin, end, [&](int64_t i, auto lanes) NT_INLINE { y.store(i, a.load(i, lanes) * b.load(i, lanes), lanes); });
    });
  });
}

NT_OP(scale_columns) {
  return dispatch_elements({args.x, args.scale, args.divisor, args.y}, [&](auto tag) {
    const Elements<typename decltype(tag)::type> x(args.x), scale(args.scale), divisor(args.divisor), y(args.y);
    parallel_for(args.num_rows, row_grain(args.width), [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; row++) {
        for_vectors(0, args.width, [&](int64_t c, auto lanes) NT_INLINE {
          /* Equal scale and divisor change nothing, to the last bit. */
          vec factor = scale.load(c, lanes);
          if (divisor) factor = factor / or_else(divisor.load(c, lanes), lanes, 1.0f);
          y.store(row * args.y_row_stride + c, x.load(row * args.x_row_stride + c, lanes) * factor, lanes);
        });
      }
    });
  });
}

NT_OP(column_dot) {
  const int64_t num_row_blocks = ceil_div(args.num_rows, block_rows), columns = args.width;
  float* partial = static_cast<float*>(shared_scratch(0, 4 * max<int64_t>(num_row_blocks, 1) * columns));
  if (partial == nullptr && columns > 0) return out_of_memory;
  return dispatch_elements({args.a, args.b, args.divisor, args.y}, [&](auto tag) {
    const Elements<typename decltype(tag)::type> a(args.a), b(args.b), divisor(args.divisor), y(args.y);
    const int64_t num_column_blocks = ceil_div(columns, block_columns);
    parallel_tasks(num_row_blocks * num_column_blocks, [&](int64_t task, int) {
      const int64_t row_block = task / num_column_blocks, first = task % num_column_blocks * block_columns;
      const int64_t last = min(first + block_columns, columns), end = min((row_block + 1) * block_rows, args.num_rows);
      float* sums = partial + row_block * columns;
      std::memset(sums + first, 0, static_cast<size_t>(last - first) * sizeof(float));
      for (int64_t row = row_block * block_rows; row < end; row++) {
        for_vectors(first, last, [&](int64_t c, auto lanes) NT_INLINE {
          const vec product = a.load(row * args.a_row_stride + c, lanes) * b.load(row * args.b_row_stride + c, lanes);
          store_vec(sums + c, load_vec(sums + c, lanes) + product, lanes);
        });
      }
    });
    const vec beta = broadcast(static_cast<float>(args.beta));
    parallel_for(columns, 1024, [&](int64_t begin, int64_t end, int) {
      for_vectors(begin, end, [&](int64_t c, auto lanes) NT_INLINE {
        vec total{};
        for (int64_t block = 0; block < num_row_blocks; block++) total += load_vec(partial + block * columns + c, lanes);
        if (divisor) total = total / or_else(divisor.load(c, lanes), lanes, 1.0f);
        if (args.beta != 0) total += beta * y.load(c, lanes);
        y.store(c, total, lanes);
      });
    });
  });
}

NT_OP(row_norms) {
  return dispatch_elements({args.x, args.norms}, [&](auto tag) {
    const Elements<typename decltype(tag)::type> x(args.x), norms(args.norms);
    parallel_for(args.num_rows, row_grain(args.width), [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; row++) {
        vec sums{};
        for_vectors(0, args.width, [&](int64_t c, auto lanes) NT_INLINE {
          const vec value = x.load(row * args.width + c, lanes);
          sums += value * value;
        });
        norms.store(row, broadcast(std::sqrt(sum_of(sums))), some_lanes{1});
      }
    });
  });
}

NT_OP(prompt_embedding_forward) {
  if (args.tokens.dtype != i32) return unsupported;
  return dispatch_float(args.y.dtype, [&](auto tag) -> int32_t {
    using T = typename decltype(tag)::type;
    if (args.weight.dtype != args.y.dtype || args.prompt.dtype != args.y.dtype) return unsupported;
    const int32_t* tokens = data<int32_t>(args.tokens);
    for (int64_t row = 0; row < args.num_rows; row++)
      if (tokens[row] < 0 || tokens[row] >= args.vocab_size + args.prompt_length) return bad_argument;
    const T *weight = data<T>(args.weight), *prompt = data<T>(args.prompt);
    T* y = data<T>(args.y);
    parallel_for(args.num_rows, row_grain(args.width), [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; row++) {
        const int64_t token = tokens[row];
        const T* source = token < args.vocab_size ? weight + token * args.width : prompt + (token - args.vocab_size) * args.width;
        std::memcpy(static_cast<void*>(y + row * args.width), source, static_cast<size_t>(args.width) * sizeof(T));
      }
    });
    return ok;
  });
}

NT_OP(prompt_embedding_backward) {
  if (args.tokens.dtype != i32) return unsupported;
  return dispatch_elements({args.dy, args.dprompt}, [&](auto tag) {
    const Elements<typename decltype(tag)::type> dy(args.dy), dprompt(args.dprompt);
    const int32_t* tokens = data<int32_t>(args.tokens);
    /* A thread owns virtual tokens and walks all rows for each: there are few of both. */
    parallel_for(args.prompt_length, 1, [&](int64_t begin, int64_t end, int) {
      alignas(64) float sums[block_columns];
      for (int64_t slot = begin; slot < end; slot++) {
        for (int64_t first = 0; first < args.width; first += block_columns) {
          const int64_t last = min(first + block_columns, args.width);
          std::memset(sums, 0, sizeof(sums));
          for (int64_t row = 0; row < args.num_rows; row++) {
            if (tokens[row] != args.vocab_size + slot) continue;
            for_vectors(first, last, [&](int64_t c, auto lanes) NT_INLINE {
              float* sum = sums + (c - first);
              store_vec(sum, load_vec(sum, lanes) + dy.load(row * args.width + c, lanes), lanes);
            });
          }
          for_vectors(first, last, [&](int64_t c, auto lanes) NT_INLINE {
            const int64_t place = slot * args.width + c;
            dprompt.store(place, dprompt.load(place, lanes) + load_vec(sums + (c - first), lanes), lanes);
          });
        }
      }
    });
  });
}

}  // namespace nt
