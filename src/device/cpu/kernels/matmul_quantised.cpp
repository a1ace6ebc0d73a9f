/*
 * A few rows times a quantised weight, read from its codes: what decoding does, bound by reading the codes once.
 *
 * The rows of x are laid out once as f32, in the order in which codes are decoded. Each thread streams a run of the weight's lines,
 * four at a time; a group's products are summed before its scale is applied. Every row of y is summed in the same order, whatever
 * the thread count and the other rows.
 */
#include "matmul_dots.h"
#include "quantised.h"

namespace nt::quantised {
namespace {

/* Lines of the weight whose codes stay in the cache while all rows of x pass. */
constexpr int64_t lines_per_run = 16;

struct Problem {
  const nt_matmul_quantised_args& args;
  Scales scales;
  /* x (m, padded_k) in the order of decoding, zeros after k. */
  const float* x;
  int64_t num_bytes, num_blocks, blocks_per_group, num_groups, padded_k;
};

template <class T, bool is_split>
void lay_out_row(const T* from, int64_t k, int64_t padded_k, float* to) {
  for (int64_t i = 0; i < padded_k; i += block) {
    float values[block] = {};
    const int64_t count = min<int64_t>(block, k - i);
    for (int64_t j = 0; j < count; j++) values[j] = load(from + i + j);
    for (int64_t j = 0; j < block; j++) to[i + (is_split ? j % 2 * (block / 2) + j / 2 : j)] = values[j];
  }
}

/* sums[j * lines + i] = line i of the weight times row j of x. */
template <class Codes, int lines, int rows>
void dot_lines(const Problem& p, const Codes& table, int64_t line, const float* scales, int64_t row, float* sums) {
  const uint8_t* codes = data<uint8_t>(p.args.codes) + line * p.num_bytes;
  const float* x = p.x + row * p.padded_k;
  vec total[rows * lines], part[rows * lines];
  unrolled<rows * lines>([&](auto i) NT_INLINE { total[i] = vec{}; });
  const auto add = [&](int64_t b, auto bytes_of) NT_INLINE {
    unrolled<lines>([&](auto i) NT_INLINE {
      vec decoded[vectors_per_block];
      table.decode(bytes_of(i), decoded);
      unrolled<rows>([&](auto j) NT_INLINE {
        unrolled<vectors_per_block>([&](auto v) NT_INLINE {
          const vec right = load_vec(x + j * p.padded_k + b * block + v * width);
          part[j * lines + i] = fused(decoded[v], right, part[j * lines + i]);
        });
      });
    });
  };
  const int64_t num_full = p.args.k / block;
  for (int64_t group = 0; group < p.num_groups; group++) {
    const int64_t begin = group * p.blocks_per_group, end = min(begin + p.blocks_per_group, p.num_blocks);
    unrolled<rows * lines>([&](auto i) NT_INLINE { part[i] = vec{}; });
    for (int64_t b = begin; b < min(end, num_full); b++) {
      unrolled<lines>([&](auto i) NT_INLINE {
        __builtin_prefetch(codes + (lines + i) * p.num_bytes + b * Codes::bytes, 0, 2);
      });
      add(b, [&](int i) NT_INLINE { return codes + i * p.num_bytes + b * Codes::bytes; });
    }
    if (end > num_full) {
      uint8_t last[lines][Codes::bytes] = {};
      const int64_t at = num_full * Codes::bytes;
      for (int i = 0; i < lines; i++)
        std::memcpy(last[i], codes + i * p.num_bytes + at, static_cast<size_t>(p.num_bytes - at));
      add(num_full, [&](int i) NT_INLINE { return last[i]; });
    }
    unrolled<lines>([&](auto i) NT_INLINE {
      const vec scale = broadcast(scales[i * p.num_groups + group]);
      unrolled<rows>([&](auto j) NT_INLINE { total[j * lines + i] = fused(scale, part[j * lines + i], total[j * lines + i]); });
    });
  }
  gemm::sum_lanes(total, sums);
}

template <class Out>
void store_sums(const Problem& p, int64_t line, int64_t num_lines, int64_t row, int64_t num_rows, const float* sums) {
  const nt_tensor& bias = p.args.bias;
  for (int64_t j = 0; j < num_rows; j++) {
    Out* y = data<Out>(p.args.y) + (row + j) * p.args.n + line;
    for (int64_t i = 0; i < num_lines; i++) {
      float sum = sums[j * num_lines + i];
      if (bias.data != nullptr)
        sum += bias.dtype == f32 ? data<float>(bias)[line + i] : to_float(data<bf16>(bias)[line + i]);
      store(y + i, sum);
    }
  }
}

/* Some lines with all rows of x. */
template <class Codes, int lines>
void run_lines(const Problem& p, const Codes& table, int64_t line, const float* scales) {
  float sums[4 * lines];
  const auto run = [&](auto rows, int64_t row) NT_INLINE {
    constexpr int count = decltype(rows)::value;
    dot_lines<Codes, lines, count>(p, table, line, scales, row, sums);
    if (p.args.y.dtype == f32) store_sums<float>(p, line, lines, row, count, sums);
    else store_sums<bf16>(p, line, lines, row, count, sums);
  };
  int64_t row = 0;
  for (; row + 4 <= p.args.m; row += 4) run(std::integral_constant<int, 4>{}, row);
  if (row + 2 <= p.args.m) {
    run(std::integral_constant<int, 2>{}, row);
    row += 2;
  }
  if (row < p.args.m) run(std::integral_constant<int, 1>{}, row);
}

template <class Codes>
int32_t multiply(const Problem& p) {
  const Codes table(values_of(p.args.format));
  bool has_room = true;
  const int64_t grain = max<int64_t>(4, round_up((1 << 15) / (p.args.k * p.args.m + 1), 4));
  const int64_t scale_bytes = 4 * lines_per_run * p.num_groups;
  for (int thread = 0; thread < num_threads(); thread++) has_room = has_room && scratch(thread, scale_bytes) != nullptr;
  if (!has_room) return out_of_memory;
  parallel_for(p.args.n, grain, [&](int64_t begin, int64_t end, int thread) {
    float* scales = static_cast<float*>(scratch(thread, scale_bytes));
    for (int64_t first = begin; first < end; first += lines_per_run) {
      const int64_t count = min(lines_per_run, end - first);
      for (int64_t i = 0; i < count * p.num_groups; i++) scales[i] = p.scales[first * p.num_groups + i];
      int64_t i = 0;
      for (; i + 4 <= count; i += 4) run_lines<Codes, 4>(p, table, first + i, scales + i * p.num_groups);
      for (; i < count; i++) run_lines<Codes, 1>(p, table, first + i, scales + i * p.num_groups);
    }
  });
  return ok;
}

template <class T>
int32_t run(const nt_matmul_quantised_args& args, const Scales& scales) {
  const int64_t num_blocks = ceil_div(args.k, int64_t{block}), padded_k = num_blocks * block;
  float* x = static_cast<float*>(shared_scratch(0, 4 * args.m * padded_k));
  if (x == nullptr) return out_of_memory;
  parallel_for(args.m, max<int64_t>(1, pointwise_grain / padded_k), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; row++) {
      const T* from = data<T>(args.x) + row * args.k;
      if (args.format == int8) lay_out_row<T, false>(from, args.k, padded_k, x + row * padded_k);
      else lay_out_row<T, true>(from, args.k, padded_k, x + row * padded_k);
    }
  });
  const bool is_whole = args.group_size >= args.k;
  const Problem problem{args,
                        scales,
                        x,
                        row_bytes(args.format, args.k),
                        num_blocks,
                        is_whole ? num_blocks : args.group_size / block,
                        is_whole ? 1 : ceil_div(args.k, args.group_size),
                        padded_k};
  return args.format == int8 ? multiply<Int8Codes>(problem) : multiply<PackedCodes>(problem);
}

}  // namespace
}  // namespace nt::quantised

NT_OP(matmul_quantised) {
  using namespace nt;
  using namespace nt::quantised;
  Scales scales;
  const int32_t status = read_scales(args, &scales);
  if (status == unsupported) return unsupported;
  const auto is_float = [](const nt_tensor& t) { return t.data == nullptr || t.dtype == f32 || t.dtype == bf16_code; };
  if (!is_float(args.y) || !is_float(args.bias)) return unsupported;
  return dispatch_float(args.x.dtype, [&](auto tag) -> int32_t {
    if (status != ok || args.k <= 0 || !are_groups(args.group_size, args.k)) return bad_argument;
    if (args.m <= 0 || args.n <= 0) return args.m < 0 || args.n < 0 ? bad_argument : ok;
    return run<typename decltype(tag)::type>(args, scales);
  });
}
