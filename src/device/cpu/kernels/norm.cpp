/*
 * LayerNorm (plain or zero-centred, by gain_offset) and RMSNorm with the residual addition before them, and their gradients.
 *
 * A row is summed into f32 scratch once and worked on there, so memory is read and written once. Gradients of gain and bias are
 * summed over blocks of rows whose number does not depend on the thread count, then over the blocks in order.
 */
#include "float8_rows.h"

namespace nt {
namespace {

/* Columns as f32, rounded up so that each array of them starts a cache line. */
int64_t padded(int64_t columns) { return round_up(columns, 16); }

/* out[c] = x[c] + offset; zeros for an absent x. */
int32_t widen_columns(const nt_tensor& x, int64_t columns, float offset, float* out) {
  if (x.data == nullptr) {
    std::memset(out, 0, static_cast<size_t>(columns) * sizeof(float));
    return ok;
  }
  return dispatch_float(x.dtype, [&](auto tag) {
    const auto* from = data<typename decltype(tag)::type>(x);
    for_vectors(0, columns, [&](int64_t c, auto lanes) NT_INLINE { store_vec(out + c, load_vec(from + c, lanes) + offset, lanes); });
  });
}

/* What both kinds share; absent tensors are null. */
struct Forward {
  nt_tensor x, addend, gain, bias, sum, y;
  float *mean, *rstd;
  int64_t num_rows, columns;
  float eps, gain_offset;
  /* Of y as it is stored; null: none. */
  uint8_t* codes;
  float* scales;
};

/* The row's s into `row`, rounded and stored as `sum` where that is given; the sum of its values. */
template <class T>
float gather_row(const Forward& p, int64_t at, float* row) {
  const Elements<T> x(p.x), addend(p.addend), sum(p.sum);
  vec total{};
  const auto gather = [&](auto has_addend, auto has_sum) {
    for_vectors(0, p.columns, [&](int64_t c, auto lanes) NT_INLINE {
      vec value = x.load(at + c, lanes);
      if constexpr (has_addend) value += addend.load(at + c, lanes);
      if constexpr (has_sum) {
        sum.store(at + c, value, lanes);
        value = sum.load(at + c, lanes);
      }
      total += value;
      store_vec(row + c, value, lanes);
    });
  };
  constexpr std::true_type yes{};
  constexpr std::false_type no{};
  if (addend && sum) gather(yes, yes);
  else if (addend) gather(yes, no);
  else if (sum) gather(no, yes);
  else gather(no, no);
  return sum_of(total);
}

float squares_about(const float* row, int64_t columns, float mean) {
  vec total{}, other{};
  const vec centre = broadcast(mean);
  int64_t c = 0;
  for (; c + 2 * width <= columns; c += 2 * width) {
    const vec a = load_vec(row + c) - centre, b = load_vec(row + c + width) - centre;
    total += a * a;
    other += b * b;
  }
  for_vectors(c, columns, [&](int64_t i, auto lanes) NT_INLINE {
    const vec a = or_else(load_vec(row + i, lanes) - centre, lanes, 0);
    total += a * a;
  });
  return sum_of(total + other);
}

/* Codes of `count` stored elements of y from `at` on; their scale. */
float stored_codes(const nt_tensor& y, int64_t at, int64_t count, uint8_t* codes) {
  return y.dtype == f32 ? quantise_row(data<float>(y) + at, count, codes) : quantise_row(data<bf16>(y) + at, count, codes);
}

template <bool is_centred>
int32_t forward(const Forward& p) {
  int32_t status = dispatch_elements({p.x, p.addend, p.sum, p.y}, [](auto) {});
  if (status != ok) return status;
  const int64_t stride = padded(p.columns);
  float* columns = static_cast<float*>(shared_scratch(0, 8 * stride));
  if (columns == nullptr) return out_of_memory;
  status = widen_columns(p.gain, p.columns, p.gain_offset, columns);
  if (status == ok) status = widen_columns(p.bias, p.columns, 0, columns + stride);
  if (status != ok) return status;
  bool has_failed = false;
  dispatch_elements({p.x, p.addend, p.sum, p.y}, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const Elements<T> y(p.y);
    const float* gain = columns;
    const float* bias = columns + stride;
    const int64_t grain = max<int64_t>(1, pointwise_grain / max<int64_t>(p.columns, 1));
    parallel_for(p.num_rows, grain, [&](int64_t begin, int64_t end, int thread) {
      float* row = static_cast<float*>(scratch(thread, 4 * stride));
      if (row == nullptr) {
        raise_flag(has_failed);
        return;
      }
      for (int64_t r = begin; r < end; r++) {
        const float total = gather_row<T>(p, r * p.columns, row);
        const float mean = is_centred ? total / static_cast<float>(p.columns) : 0;
        const float variance = squares_about(row, p.columns, mean) / static_cast<float>(p.columns);
        const float rstd = 1.0f / std::sqrt(variance + p.eps);
        if (p.mean != nullptr) p.mean[r] = mean;
        if (p.rstd != nullptr) p.rstd[r] = rstd;
        const vec centre = broadcast(mean), factor = broadcast(rstd);
        for_vectors(0, p.columns, [&](int64_t c, auto lanes) NT_INLINE {
          const vec normal = (load_vec(row + c, lanes) - centre) * factor;
          y.store(r * p.columns + c, normal * load_vec(gain + c, lanes) + load_vec(bias + c, lanes), lanes);
        });
        if (p.codes != nullptr) p.scales[r] = stored_codes(p.y, r * p.columns, p.columns, p.codes + r * p.columns);
      }
    });
  });
  return has_failed ? out_of_memory : ok;
}

struct Backward {
  nt_tensor dy, x, gain, dsum, dx, dgain, dbias;
  const float *mean, *rstd; /* mean is null for RMSNorm */
  int64_t num_rows, columns;
  float gain_offset;
};

/* Sums of dy * xHat and dy over a block of rows, added to `gain_sums` and `bias_sums`. */
struct ColumnSums {
  float *gain, *bias;
};

/*
 * With xHat = (s - mean) rstd and g = dy (gain + offset): dx = rstd (g - average(g) - xHat average(g xHat)) + dsum;
 * average(g) drops out without centring.
 */
template <bool is_centred, class T>
void backward_row(const Backward& p, int64_t r, const float* gain, const ColumnSums& sums) {
  const Elements<T> dy(p.dy), x(p.x), dsum(p.dsum), dx(p.dx);
  const int64_t at = r * p.columns;
  const float mean_value = is_centred ? p.mean[r] : 0;
  const vec mean = broadcast(mean_value), rstd = broadcast(p.rstd[r]);
  vec total{}, product{};
  for_vectors(0, p.columns, [&](int64_t c, auto lanes) NT_INLINE {
    const vec gradient = dy.load(at + c, lanes); /* zero beyond the row, and so is all that follows from it */
    const vec normal = (x.load(at + c, lanes) - mean) * rstd, with_normal = gradient * normal;
    const vec g = gradient * load_vec(gain + c, lanes);
    if constexpr (is_centred) total += g;
    product += g * normal;
    store_vec(sums.gain + c, load_vec(sums.gain + c, lanes) + with_normal, lanes);
    if constexpr (is_centred) store_vec(sums.bias + c, load_vec(sums.bias + c, lanes) + gradient, lanes);
  });
  const float columns = static_cast<float>(p.columns);
  const vec average = broadcast(is_centred ? sum_of(total) / columns : 0), correlation = broadcast(sum_of(product) / columns);
  const auto write = [&](auto has_dsum) {
    for_vectors(0, p.columns, [&](int64_t c, auto lanes) NT_INLINE {
      const vec normal = (x.load(at + c, lanes) - mean) * rstd;
      vec g = dy.load(at + c, lanes) * load_vec(gain + c, lanes) - normal * correlation;
      if constexpr (is_centred) g -= average;
      vec result = g * rstd;
      if constexpr (has_dsum) result += dsum.load(at + c, lanes);
      dx.store(at + c, result, lanes);
    });
  };
  if (dsum) write(std::true_type{});
  else write(std::false_type{});
}

/* target[c] += sum over blocks of partial[block * stride + c] */
int32_t add_blocks(const nt_tensor& target, const float* partial, int64_t num_blocks, int64_t stride, int64_t columns) {
  if (target.data == nullptr) return ok;
  return dispatch_float(target.dtype, [&](auto tag) {
    auto* sums = data<typename decltype(tag)::type>(target);
    parallel_for(columns, 512, [&](int64_t begin, int64_t end, int) {
      for_vectors(begin, end, [&](int64_t c, auto lanes) NT_INLINE {
        vec total{};
        for (int64_t block = 0; block < num_blocks; block++) total += load_vec(partial + block * stride + c, lanes);
        store_vec(sums + c, load_vec(sums + c, lanes) + total, lanes);
      });
    });
  });
}

constexpr int64_t most_blocks = 128, fewest_rows = 16;

template <bool is_centred>
int32_t backward(const Backward& p) {
  int32_t status = dispatch_elements({p.dgain, p.dbias}, [](auto) {});
  if (status == ok) status = dispatch_elements({p.dy, p.x, p.dsum, p.dx}, [](auto) {});
  if (status != ok) return status;
  const int64_t stride = padded(p.columns), num_blocks = min(most_blocks, ceil_div(p.num_rows, fewest_rows));
  float* gain = static_cast<float*>(shared_scratch(0, 4 * stride));
  float* partial = static_cast<float*>(shared_scratch(1, 8 * stride * max<int64_t>(num_blocks, 1)));
  if (gain == nullptr || partial == nullptr) return out_of_memory;
  status = widen_columns(p.gain, p.columns, p.gain_offset, gain);
  if (status != ok) return status;
  dispatch_elements({p.dy, p.x, p.dsum, p.dx}, [&](auto tag) {
    parallel_tasks(num_blocks, [&](int64_t block, int) {
      float* sums = partial + 2 * stride * block;
      std::memset(sums, 0, static_cast<size_t>(2 * stride) * sizeof(float));
      const int64_t end = p.num_rows * (block + 1) / num_blocks;
      for (int64_t r = p.num_rows * block / num_blocks; r < end; r++)
        backward_row<is_centred, typename decltype(tag)::type>(p, r, gain, {sums, sums + stride});
    });
  });
  status = add_blocks(p.dgain, partial, num_blocks, 2 * stride, p.columns);
  return status == ok ? add_blocks(p.dbias, partial + stride, num_blocks, 2 * stride, p.columns) : status;
}

/* Statistics are f32 where they are given. */
bool are_wide(std::initializer_list<nt_tensor> tensors) {
  for (const nt_tensor& tensor : tensors)
    if (tensor.data != nullptr && tensor.dtype != f32) return false;
  return true;
}

bool are_codes(const nt_tensor& tensor) { return tensor.data == nullptr || tensor.dtype == u8; }

constexpr nt_tensor absent{nullptr, f32};

}  // namespace

NT_OP(layer_norm_forward) {
  if (!are_wide({args.mean, args.rstd, args.scales}) || !are_codes(args.codes)) return unsupported;
  return forward<true>({args.x, args.addend, args.gain, args.bias, args.sum, args.y, data<float>(args.mean),
                        data<float>(args.rstd), args.num_rows, args.width, static_cast<float>(args.eps),
                        static_cast<float>(args.gain_offset), data<uint8_t>(args.codes), data<float>(args.scales)});
}

NT_OP(rms_norm_forward) {
  if (!are_wide({args.rstd, args.scales}) || !are_codes(args.codes)) return unsupported;
  return forward<false>({args.x, args.addend, args.gain, absent, args.sum, args.y, nullptr, data<float>(args.rstd),
                         args.num_rows, args.width, static_cast<float>(args.eps), static_cast<float>(args.gain_offset),
                         data<uint8_t>(args.codes), data<float>(args.scales)});
}

NT_OP(layer_norm_backward) {
  if (!are_wide({args.mean, args.rstd})) return unsupported;
  return backward<true>({args.dy, args.x, args.gain, args.dsum, args.dx, args.dgain, args.dbias, data<float>(args.mean),
                         data<float>(args.rstd), args.num_rows, args.width, static_cast<float>(args.gain_offset)});
}

NT_OP(rms_norm_backward) {
  if (!are_wide({args.rstd})) return unsupported;
  return backward<false>({args.dy, args.x, args.gain, args.dsum, args.dx, args.dgain, absent, nullptr, data<float>(args.rstd),
                          args.num_rows, args.width, static_cast<float>(args.gain_offset)});
}

}  // namespace nt
