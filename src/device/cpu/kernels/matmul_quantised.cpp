/*
 * A few rows times a quantised weight, read from its codes: what decoding does, bound by reading the codes once. And products of two
 * matrices of E4M3 codes, few rows in the same way and many as bf16.
 *
 * The rows of x are laid out once as f32, in the order in which codes are decoded. Each thread streams a run of the weight's lines,
 * four at a time; a group's products are summed before its scale is applied. Every row of y is summed in the same order, whatever
 * the thread count and the other rows.
 */
#include "matmul.h"
#include "matmul_dots.h"
#include "quantised.h"

namespace nt::quantised {
namespace {

/* Lines of the weight whose codes stay in the cache while all rows of x pass. */
constexpr int64_t lines_per_run = 16;

struct Problem {
  const nt_matmul_quantised_args& args;
  Scales scales;
  /* Of the rows of x; null: 1. */
  const float* x_scales;
  int64_t y_row_stride;
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
    Out* y = data<Out>(p.args.y) + (row + j) * p.y_row_stride + line;
    const float x_scale = p.x_scales == nullptr ? 1.0f : p.x_scales[row + j];
    for (int64_t i = 0; i < num_lines; i++) {
      float sum = sums[j * num_lines + i] * x_scale;
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

/* x (m, k) as `columns` of f32 in the order of decoding, by Codes. Null: no room. */
template <class T, class Codes>
const float* lay_out(const nt_tensor& x, int64_t m, int64_t k) {
  const int64_t padded_k = round_up(k, block);
  float* out = static_cast<float*>(shared_scratch(0, 4 * m * padded_k));
  if (out == nullptr) return nullptr;
  parallel_for(m, max<int64_t>(1, pointwise_grain / padded_k), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; row++)
      lay_out_row<T, Codes::is_split>(data<T>(x) + row * k, k, padded_k, out + row * padded_k);
  });
  return out;
}

struct Rows {
  const float* scales;
  int64_t y_row_stride;
};

template <class T, class Codes>
int32_t run(const nt_matmul_quantised_args& args, const Scales& scales, int64_t row_bytes, const Rows& rows) {
  const float* x = lay_out<T, Codes>(args.x, args.m, args.k);
  if (x == nullptr) return out_of_memory;
  const int64_t num_blocks = ceil_div(args.k, int64_t{block});
  const bool is_whole = args.group_size >= args.k;
  return multiply<Codes>({args,
                          scales,
                          rows.scales,
                          rows.y_row_stride,
                          x,
                          row_bytes,
                          num_blocks,
                          is_whole ? num_blocks : args.group_size / block,
                          is_whole ? 1 : ceil_div(args.k, args.group_size),
                          num_blocks * block});
}

/* Rows of x up to which codes are read one by one: beyond, making them bf16 costs less than it saves. */
constexpr int64_t most_few_rows = 16;
/* Elements of b that are bf16 at once. */
constexpr int64_t tile_elements = 1 << 21;
/* Of shared scratch: the product itself has the first ones. */
enum Slot { a_slot = 4, b_slot = 5, sums_slot = 6 };

/* Rows of codes as bf16, which holds all of them. */
void widen_codes(const uint8_t* codes, int64_t num_elements, bf16* out) {
  parallel_for(num_elements, pointwise_grain, [&](int64_t begin, int64_t end, int) {
    for_vectors(begin, end, [&](int64_t i, auto lanes) NT_INLINE { store_vec(out + i, e4m3_values(load_codes(codes + i, lanes)), lanes); });
  });
}

/* The part of c whose columns `first` and on have these sums (m, count). */
template <class Out>
void scale_sums(const nt_matmul_scaled_args& args, const float* sums, int64_t first, int64_t count) {
  const auto bias_at = [&](int64_t column) {
    if (args.bias.data == nullptr) return 0.0f;
    return args.bias.dtype == f32 ? data<float>(args.bias)[column] : to_float(data<bf16>(args.bias)[column]);
  };
  parallel_for(args.m, max<int64_t>(1, pointwise_grain / count), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; row++) {
      const float a_scale = data<float>(args.a_scales)[row];
      Out* c = data<Out>(args.c) + row * args.ldc + first;
      for (int64_t i = 0; i < count; i++)
        store(c + i, sums[row * count + i] * a_scale * data<float>(args.b_scales)[first + i] + bias_at(first + i));
    }
  });
}

/* Products of many rows: a whole and b some lines at a time as bf16. */
int32_t multiply_widened(const nt_matmul_scaled_args& args) {
  const int64_t tile = min(args.n, max<int64_t>(64, tile_elements / args.k));
  bf16* a = static_cast<bf16*>(shared_scratch(a_slot, 2 * args.m * args.k));
  bf16* b = static_cast<bf16*>(shared_scratch(b_slot, 2 * tile * args.k));
  float* sums = static_cast<float*>(shared_scratch(sums_slot, 4 * args.m * tile));
  if (a == nullptr || b == nullptr || sums == nullptr) return out_of_memory;
  widen_codes(data<uint8_t>(args.a), args.m * args.k, a);
  for (int64_t first = 0; first < args.n; first += tile) {
    const int64_t count = min(tile, args.n - first);
    widen_codes(data<uint8_t>(args.b) + first * args.k, count * args.k, b);
    const gemm::Product product{a, b, sums, nullptr, args.m, count, args.k, args.k, args.k, count, false, true, false, false, 1, 0};
    const int32_t status = gemm::multiply_bf16(product);
    if (status != ok) return status;
    if (args.c.dtype == f32) scale_sums<float>(args, sums, first, count);
    else scale_sums<bf16>(args, sums, first, count);
  }
  return ok;
}

/* Products of few rows as those of any quantised weight, in one group a line. */
int32_t multiply_few(const nt_matmul_scaled_args& args) {
  nt_matmul_quantised_args lines{};
  lines.x = args.a;
  lines.codes = args.b;
  lines.bias = args.bias;
  lines.y = args.c;
  lines.m = args.m;
  lines.n = args.n;
  lines.k = args.k;
  lines.group_size = args.k;
  const Scales scales{data<float>(args.b_scales), nullptr, nullptr, nullptr, 0};
  return run<e4m3, E4m3Codes>(lines, scales, args.k, {data<float>(args.a_scales), args.ldc});
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
    using T = typename decltype(tag)::type;
    const int64_t num_bytes = row_bytes(args.format, args.k);
    const Rows rows{nullptr, args.n};
    return args.format == int8 ? run<T, Int8Codes>(args, scales, num_bytes, rows) : run<T, PackedCodes>(args, scales, num_bytes, rows);
  });
}

NT_OP(matmul_scaled) {
  using namespace nt;
  using namespace nt::quantised;
  const auto is_float = [](const nt_tensor& t) { return t.data == nullptr || t.dtype == f32 || t.dtype == bf16_code; };
  if (args.a.dtype != u8 || args.b.dtype != u8 || args.a_scales.dtype != f32 || args.b_scales.dtype != f32) return unsupported;
  if (!is_float(args.c) || !is_float(args.bias)) return unsupported;
  if (args.k <= 0 || args.m < 0 || args.n < 0) return bad_argument;
  if (args.m == 0 || args.n == 0) return ok;
  return args.m <= most_few_rows ? multiply_few(args) : multiply_widened(args);
}
