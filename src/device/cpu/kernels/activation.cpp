/* Pointwise activations, their derivatives, and the gated forms. */
#include "float8_rows.h"
#include "vector_math.h"

namespace nt {
namespace {

/* The kinds of the operator table. Each gives its value, and its value and derivative together. */

struct Relu {
  static NT_INLINE vec value(vec x) { return x < 0.0f ? vec{} : x; }
  static NT_INLINE vec value(vec x, vec& derivative) {
    derivative = x > 0.0f ? broadcast(1.0f) : vec{};
    return value(x);
  }
};

struct SquaredRelu {
  static NT_INLINE vec value(vec x) {
    const vec positive = Relu::value(x);
    return positive * positive;
  }
  static NT_INLINE vec value(vec x, vec& derivative) {
    const vec positive = Relu::value(x);
    derivative = positive + positive;
    return positive * positive;
  }
};

/* x / 2 (1 + tanh u) = x sigmoid(2u), which keeps its digits in the lower tail. */
struct GeluTanh {
  static constexpr float scale = 1.59576912f, cubic = 0.044715f; /* 2 sqrt(2 / pi) */
  static NT_INLINE vec value(vec x) { return x * sigmoid(scale * x * (1.0f + cubic * x * x)); }
  static NT_INLINE vec value(vec x, vec& derivative) {
    vec other;
    const vec s = sigmoid(scale * x * (1.0f + cubic * x * x), other);
    derivative = s + x * s * other * (scale * (1.0f + 3.0f * cubic * x * x));
    return x * s;
  }
};

struct Silu {
  static NT_INLINE vec value(vec x) { return x * sigmoid(x); }
  static NT_INLINE vec value(vec x, vec& derivative) {
    vec other;
    const vec s = sigmoid(x, other);
    derivative = s * (1.0f + x * other);
    return x * s;
  }
};

struct GeluErf {
  static NT_INLINE vec value(vec x) {
    vec density;
    return x * normal_distribution(x, density);
  }
  static NT_INLINE vec value(vec x, vec& derivative) {
    vec density;
    const vec p = normal_distribution(x, density);
    derivative = p + x * density * 0.398942280f; /* 1 / sqrt(2 pi) */
    return x * p;
  }
};

struct Sigmoid {
  static NT_INLINE vec value(vec x) { return sigmoid(x); }
  static NT_INLINE vec value(vec x, vec& derivative) {
    vec other;
    const vec s = sigmoid(x, other);
    derivative = s * other;
    return s;
  }
};

/* tanh x = 2 sigmoid(2x) - 1, written as a difference of two tails so that nothing cancels far out; near zero, where they would, by its
 * series. */
struct Tanh {
  static NT_INLINE vec value(vec x, vec& derivative) {
    vec other;
    const vec s = sigmoid(2.0f * x, other), square = x * x;
    derivative = 4.0f * s * other;
    const vec series = x * (1.0f + square * (-0.333333333f + square * (0.133333333f + square * -0.053968254f)));
    return square < 0.0225f ? series : s - other;
  }
  static NT_INLINE vec value(vec x) {
    vec derivative;
    return value(x, derivative);
  }
};

template <class Body>
int32_t dispatch_kind(int64_t kind, const Body& body) {
  switch (kind) {
    case 0: return body(type_tag<SquaredRelu>{});
    case 1: return body(type_tag<GeluTanh>{});
    case 2: return body(type_tag<Silu>{});
    case 3: return body(type_tag<GeluErf>{});
    case 4: return body(type_tag<Relu>{});
    case 5: return body(type_tag<Sigmoid>{});
    case 6: return body(type_tag<Tanh>{});
    default: return bad_argument;
  }
}

int64_t row_grain(int64_t columns) { return max<int64_t>(1, pointwise_grain / max<int64_t>(columns, 1)); }

}  // namespace

NT_OP(activation_forward) {
  return dispatch_kind(args.kind, [&](auto kind) {
    return dispatch_elements({args.x, args.y}, [&](auto tag) {
      const Elements<typename decltype(tag)::type> x(args.x), y(args.y);
      parallel_for(args.num_elements, pointwise_grain, [&](int64_t begin, int64_t end, int) {
        for_vectors(begin, end, [&](int64_t i, auto lanes) NT_INLINE {
          y.store(i, decltype(kind)::type::value(x.load(i, lanes)), lanes);
        });
      });
    });
  });
}

NT_OP(activation_backward) {
  return dispatch_kind(args.kind, [&](auto kind) {
    return dispatch_elements({args.x, args.dy, args.dx}, [&](auto tag) {
      const Elements<typename decltype(tag)::type> x(args.x), dy(args.dy), dx(args.dx);
      parallel_for(args.num_elements, pointwise_grain, [&](int64_t begin, int64_t end, int) {
        for_vectors(begin, end, [&](int64_t i, auto lanes) NT_INLINE {
          vec derivative;
          decltype(kind)::type::value(x.load(i, lanes), derivative);
          dx.store(i, dy.load(i, lanes) * derivative, lanes);
        });
      });
    });
  });
}

NT_OP(gated_activation_forward) {
  return dispatch_kind(args.kind, [&](auto kind) {
    return dispatch_elements({args.x, args.y}, [&](auto tag) {
      const Elements<typename decltype(tag)::type> x(args.x), y(args.y);
      const int64_t columns = args.width;
      parallel_for(args.num_rows, row_grain(columns), [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; row++) {
          const int64_t gate = 2 * row * columns, linear = gate + columns;
          for_vectors(0, columns, [&](int64_t i, auto lanes) NT_INLINE {
            y.store(row * columns + i, decltype(kind)::type::value(x.load(gate + i, lanes)) * x.load(linear + i, lanes), lanes);
          });
        }
      });
    });
  });
}

NT_OP(activation_codes) {
  if (args.codes.dtype != u8 || args.scales.dtype != f32) return unsupported;
  return dispatch_kind(args.kind, [&](auto kind) {
    return dispatch_float(args.x.dtype, [&](auto tag) -> int32_t {
      using T = typename decltype(tag)::type;
      const int64_t columns = args.width, stride = args.gated != 0 ? 2 * columns : columns;
      bool has_failed = false;
      parallel_for(args.num_rows, row_grain(columns), [&](int64_t begin, int64_t end, int thread) {
        T* values = static_cast<T*>(scratch(thread, static_cast<int64_t>(sizeof(T)) * max<int64_t>(columns, 1)));
        if (values == nullptr) {
          raise_flag(has_failed);
          return;
        }
        for (int64_t row = begin; row < end; row++) {
          const T* x = data<T>(args.x) + row * stride;
          for_vectors(0, columns, [&](int64_t i, auto lanes) NT_INLINE {
            const vec value = decltype(kind)::type::value(load_vec(x + i, lanes));
            store_vec(values + i, args.gated != 0 ? value * load_vec(x + columns + i, lanes) : value, lanes);
          });
          data<float>(args.scales)[row] = quantise_row(values, columns, data<uint8_t>(args.codes) + row * columns);
        }
      });
      return has_failed ? out_of_memory : ok;
    });
  });
}

NT_OP(gated_activation_backward) {
  return dispatch_kind(args.kind, [&](auto kind) {
    return dispatch_elements({args.x, args.dy, args.dx}, [&](auto tag) {
      const Elements<typename decltype(tag)::type> x(args.x), dy(args.dy), dx(args.dx);
      const int64_t columns = args.width;
      parallel_for(args.num_rows, row_grain(columns), [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; row++) {
          const int64_t gate = 2 * row * columns, linear = gate + columns;
          for_vectors(0, columns, [&](int64_t i, auto lanes) NT_INLINE {
            vec derivative;
            const vec gradient = dy.load(row * columns + i, lanes), right = x.load(linear + i, lanes);
            const vec value = decltype(kind)::type::value(x.load(gate + i, lanes), derivative);
            dx.store(gate + i, gradient * derivative * right, lanes);
            dx.store(linear + i, gradient * value, lanes);
          });
        }
      });
    });
  });
}

}  // namespace nt
