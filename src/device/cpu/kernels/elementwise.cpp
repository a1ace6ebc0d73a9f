/*
 * Pointwise operators without a formula of their own: fill, casts, sums of tensors. All are bound by memory.
 */
#include "vector.h"

namespace nt {
namespace {

template <class T>
int32_t fill_with(const nt_fill_args& args, T value) {
  T* y = data<T>(args.y);
  parallel_for(args.num_elements, pointwise_grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) y[i] = value;
  });
  return ok;
}

/* x as f32, rounded to odd: rounding that to a narrower type gives what rounding x once would give. */
float to_odd(double x) {
  const float nearest = static_cast<float>(x);
  if (static_cast<double>(nearest) == x || x != x || nearest == 0) return nearest;
  uint32_t bits = bit_cast<uint32_t>(nearest);
  if (std::fabs(static_cast<double>(nearest)) > std::fabs(x)) bits -= 1;
  return bit_cast<float>(bits | 1);
}

template <class From, class To>
inline To cast(From x) {
  if constexpr (std::is_same_v<To, double>) {
    if constexpr (std::is_same_v<From, double>) return x;
    else return static_cast<double>(to_float(x));
  } else if constexpr (std::is_same_v<From, double>) {
    if constexpr (std::is_same_v<To, float>) return static_cast<float>(x);
    else return from_float<To>(to_odd(x));
  } else {
    return from_float<To>(to_float(x));
  }
}

template <class From, class To>
void convert_range(const From* x, To* y, int64_t begin, int64_t end) {
  constexpr bool is_vector = (std::is_same_v<From, float> && std::is_same_v<To, bf16>) ||
                             (std::is_same_v<From, bf16> && std::is_same_v<To, float>);
  if constexpr (std::is_same_v<From, To>) {
    std::memcpy(y + begin, x + begin, static_cast<size_t>(end - begin) * sizeof(From));
  } else if constexpr (is_vector) {
    for_vectors(begin, end, [&](int64_t i, auto lanes) NT_INLINE { store_vec(y + i, load_vec(x + i, lanes), lanes); });
  } else {
    for (int64_t i = begin; i < end; i++) y[i] = cast<From, To>(x[i]);
  }
}

template <class Body>
int32_t dispatch_convertible(int64_t dtype, const Body& body) {
  switch (dtype) {
    case f32: return body(type_tag<float>{});
    case bf16_code: return body(type_tag<bf16>{});
    case f16_code: return body(type_tag<f16>{});
    case f64: return body(type_tag<double>{});
    default: return unsupported;
  }
}

}  // namespace

NT_OP(fill) {
  switch (args.y.dtype) {
    case f32: return fill_with(args, static_cast<float>(args.value));
    case bf16_code: return fill_with(args, cast<double, bf16>(args.value));
    case f16_code: return fill_with(args, cast<double, f16>(args.value));
    case f64: return fill_with(args, args.value);
    case i32: return fill_with(args, static_cast<int32_t>(args.value));
    case i64: return fill_with(args, static_cast<int64_t>(args.value));
    case u8: return fill_with(args, static_cast<uint8_t>(static_cast<int64_t>(args.value)));
    default: return unsupported;
  }
}

NT_OP(convert) {
  return dispatch_convertible(args.x.dtype, [&](auto from) {
    return dispatch_convertible(args.y.dtype, [&](auto to) -> int32_t {
      using From = typename decltype(from)::type;
      using To = typename decltype(to)::type;
      const From* x = data<From>(args.x);
      To* y = data<To>(args.y);
      parallel_for(args.num_elements, pointwise_grain,
                   [&](int64_t begin, int64_t end, int) { convert_range(x, y, begin, end); });
      return ok;
    });
  });
}

NT_OP(add) {
  return dispatch_elements({args.a, args.b, args.y}, [&](auto tag) {
    const Elements<typename decltype(tag)::type> a(args.a), b(args.b), y(args.y);
    parallel_for(args.num_elements, pointwise_grain, [&](int64_t begin, int64_t end, int) {
      for_vectors(begin, end, [&](int64_t i, auto lanes) NT_INLINE { y.store(i, a.load(i, lanes) + b.load(i, lanes), lanes); });
    });
  });
}

NT_OP(axpby) {
  const vec alpha = broadcast(static_cast<float>(args.alpha)), beta = broadcast(static_cast<float>(args.beta));
  return dispatch_elements({args.x, args.y}, [&](auto tag) {
    const Elements<typename decltype(tag)::type> x(args.x), y(args.y);
    parallel_for(args.num_elements, pointwise_grain, [&](int64_t begin, int64_t end, int) {
      if (args.beta == 0) {
        for_vectors(begin, end, [&](int64_t i, auto lanes) NT_INLINE { y.store(i, alpha * x.load(i, lanes), lanes); });
      } else {
        for_vectors(begin, end, [&](int64_t i, auto lanes) NT_INLINE {
          y.store(i, alpha * x.load(i, lanes) + beta * y.load(i, lanes), lanes);
        });
      }
    });
  });
}

NT_OP(scale_rows) {
  if (args.row_scales.dtype != f32) return unsupported;
  const float* scales = data<float>(args.row_scales);
  const int64_t grain = max<int64_t>(1, pointwise_grain / max<int64_t>(args.width, 1));
  return dispatch_elements({args.x, args.y}, [&](auto tag) {
    const Elements<typename decltype(tag)::type> x(args.x), y(args.y);
    parallel_for(args.num_rows, grain, [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; row++) {
        const vec scale = broadcast(scales[row]);
        for_vectors(row * args.width, (row + 1) * args.width,
                    [&](int64_t i, auto lanes) NT_INLINE { y.store(i, scale * x.load(i, lanes), lanes); });
      }
    });
  });
}

}  // namespace nt
