// Pointwise activations, plain and gated, forward and backward; the kinds of the operator table. T is the type of all tensors.
// Of rows whose codes are wanted (quantiseRows) a block has one, in registers.
// Memory-bound: four independent 16-byte accesses per thread and operand.
#include "float8.cuh"

constexpr int threads = 256;
constexpr int packs_per_thread = 4;
constexpr int count = Pack<T>::count;
// launch/activation.ts counts its blocks by this.
constexpr int64_t packs_per_block = threads * packs_per_thread;

enum Kind { squared_relu = 0, gelu_tanh = 1, silu = 2, gelu_erf = 3, relu = 4, sigmoid_kind = 5, tanh_kind = 6 };

constexpr float sqrt_two_over_pi = 0.7978845608028654f;
constexpr float gelu_cubic = 0.044715f;

// 1 / (1 + e^-x)
__device__ __forceinline__ float sigmoid(float x) { return divide_for<T>(1.0f, 1.0f + exp_for<T>(-x)); }

// The sigmoid and what it lacks to one, both with full relative precision.
struct Sigmoids {
  float value;
  float rest;
};
__device__ __forceinline__ Sigmoids sigmoids(float x) {
  const float e = exp_for<T>(-fabsf(x));
  const float high = divide_for<T>(1.0f, 1.0f + e), low = e * high;
  return x < 0.0f ? Sigmoids{low, high} : Sigmoids{high, low};
}

template <int kind>
__device__ __forceinline__ float value_of(float x) {
  if constexpr (kind == squared_relu) return x < 0.0f ? 0.0f : x * x;
  if constexpr (kind == relu) return x < 0.0f ? 0.0f : x;
  if constexpr (kind == silu) return x * sigmoid(x);
  // 0.5 (1 + tanh(u)) = sigmoid(2 u), which keeps its relative precision for large negative u.
  if constexpr (kind == gelu_tanh) return x * sigmoid(2.0f * sqrt_two_over_pi * (x + gelu_cubic * x * x * x));
  // 0.5 (1 + erf(x / sqrt 2)) = 0.5 erfc(-x / sqrt 2), likewise.
  if constexpr (kind == gelu_erf) return 0.5f * x * erfcf(-0.7071067811865476f * x);
  if constexpr (kind == sigmoid_kind) return sigmoid(x);
  if constexpr (kind == tanh_kind) return tanhf(x);
}

template <int kind>
__device__ __forceinline__ float derivative_of(float x) {
  if constexpr (kind == sigmoid_kind) {
    const Sigmoids s = sigmoids(x);
    return s.value * s.rest;
  }
  // 1 - tanh(x)^2, without its cancellation far out.
  if constexpr (kind == tanh_kind) {
    const Sigmoids s = sigmoids(2.0f * x);
    return 4.0f * s.value * s.rest;
  }
  if constexpr (kind == squared_relu) return x < 0.0f ? 0.0f : 2.0f * x;
  if constexpr (kind == relu) return x > 0.0f ? 1.0f : 0.0f;
  if constexpr (kind == silu) {
    const Sigmoids s = sigmoids(x);
    return s.value * (1.0f + x * s.rest);
  }
  if constexpr (kind == gelu_tanh) {
    const Sigmoids s = sigmoids(2.0f * sqrt_two_over_pi * (x + gelu_cubic * x * x * x));
    return s.value + x * 2.0f * s.value * s.rest * sqrt_two_over_pi * (1.0f + 3.0f * gelu_cubic * x * x);
  }
  if constexpr (kind == gelu_erf)
    return 0.5f * erfcf(-0.7071067811865476f * x) + x * exp_for<T>(-0.5f * x * x) * 0.3989422804014327f;
}

// Calls body with the kind as a compile-time constant.
template <int kind>
struct KindTag {
  static constexpr int value = kind;
};
template <class Body>
__device__ __forceinline__ void with_kind(int kind, Body body) {
  switch (kind) {
    case squared_relu: return body(KindTag<squared_relu>{});
    case gelu_tanh: return body(KindTag<gelu_tanh>{});
    case silu: return body(KindTag<silu>{});
    case gelu_erf: return body(KindTag<gelu_erf>{});
    case sigmoid_kind: return body(KindTag<sigmoid_kind>{});
    case tanh_kind: return body(KindTag<tanh_kind>{});
    default: return body(KindTag<relu>{});
  }
}

// y[i] = body(x[i], dy[i]); dy may be null.
template <class Body>
__device__ __forceinline__ void map(const T* x, const T* dy, T* y, int64_t num_elements, Body body) {
  const bool is_aligned = is_aligned_16(x) && is_aligned_16(dy) && is_aligned_16(y);
  const int64_t num_packs = is_aligned ? num_elements / count : 0;
  const int64_t first = blockIdx.x * packs_per_block + threadIdx.x;
  Pack<T> packs_x[packs_per_thread], packs_dy[packs_per_thread] = {};
#pragma unroll
  for (int p = 0; p < packs_per_thread; p++) {
    const int64_t pack = first + p * threads;
    if (pack >= num_packs) continue;
    packs_x[p] = load_pack_streaming(x + pack * count);
    if (dy != nullptr) packs_dy[p] = load_pack_streaming(dy + pack * count);
  }
#pragma unroll
  for (int p = 0; p < packs_per_thread; p++) {
    const int64_t pack = first + p * threads;
    if (pack >= num_packs) continue;
    float values_x[count], values_dy[count];
    unpack(packs_x[p], values_x);
    unpack(packs_dy[p], values_dy);
#pragma unroll
    for (int i = 0; i < count; i++) values_x[i] = body(values_x[i], values_dy[i]);
    store_pack(y + pack * count, pack_of(values_x));
  }
  for (int64_t i = num_packs * count + int64_t(blockIdx.x) * threads + threadIdx.x; i < num_elements;
       i += int64_t(gridDim.x) * threads)
    y[i] = from_float<T>(body(to_float(x[i]), dy == nullptr ? 0.0f : to_float(dy[i])));
}

extern "C" __global__ void __launch_bounds__(threads) activation_forward(const T* x, T* y, int64_t num_elements, int kind) {
  begin_after_previous();
  with_kind(kind, [=](auto tag) {
    map(x, nullptr, y, num_elements, [](float value, float) { return value_of<decltype(tag)::value>(value); });
  });
}
// Few whole packs, one a thread: their time is that of one access, which is under way before the kind is looked up.
extern "C" __global__ void __launch_bounds__(threads) activation_forward_few(const T* x, T* y, int num_packs, int kind) {
  allow_next_kernel();
  const int pack = blockIdx.x * threads + threadIdx.x;
  wait_for_previous_kernel();
  if (pack >= num_packs) return;
  const Pack<T> loaded = load_pack_streaming(x + int64_t(pack) * count);
  with_kind(kind, [&](auto tag) {
    float values[count];
    unpack(loaded, values);
#pragma unroll
    for (int i = 0; i < count; i++) values[i] = value_of<decltype(tag)::value>(values[i]);
    store_pack(y + int64_t(pack) * count, pack_of(values));
  });
}
extern "C" __global__ void __launch_bounds__(threads)
    activation_backward(const T* x, const T* dy, T* dx, int64_t num_elements, int kind) {
  with_kind(kind, [=](auto tag) {
    map(x, dy, dx, num_elements,
        [](float value, float gradient) { return gradient * derivative_of<decltype(tag)::value>(value); });
  });
}

// ---- gated: x (N, 2F) holds the argument of f, then the factor ----

struct Gated {
  const T* x;
  const T* dy;
  T* y;
  int64_t num_rows;
  int64_t width;
  int kind;
};

// Calls body(row, column) for each pack, or each element where packs do not fit, of (N, F).
template <class Packs, class Singles>
__device__ __forceinline__ void for_gated(const Gated& args, Packs packs_body, Singles singles_body) {
  const bool is_aligned =
      args.width % count == 0 && is_aligned_16(args.x) && is_aligned_16(args.dy) && is_aligned_16(args.y);
  const int64_t per_row = is_aligned ? args.width / count : args.width;
  const int64_t total = args.num_rows * per_row;
#pragma unroll 2
  for (int64_t i = int64_t(blockIdx.x) * threads + threadIdx.x; i < total; i += int64_t(gridDim.x) * threads) {
    const int64_t row = i / per_row, column = i - row * per_row;
    if (is_aligned) {
      packs_body(row, column * count);
    } else {
      singles_body(row, column);
    }
  }
}

extern "C" __global__ void __launch_bounds__(threads) gated_forward(Gated args) {
  begin_after_previous();
  with_kind(args.kind, [=](auto tag) {
    constexpr int kind = decltype(tag)::value;
    for_gated(
        args,
        [=](int64_t row, int64_t column) {
          const T* from = args.x + row * 2 * args.width + column;
          float gate[count], factor[count];
          const Pack<T> gate_pack = load_pack_streaming(from), factor_pack = load_pack_streaming(from + args.width);
          unpack(gate_pack, gate);
          unpack(factor_pack, factor);
#pragma unroll
          for (int i = 0; i < count; i++) gate[i] = value_of<kind>(gate[i]) * factor[i];
          store_pack(args.y + row * args.width + column, pack_of(gate));
        },
        [=](int64_t row, int64_t column) {
          const T* from = args.x + row * 2 * args.width + column;
          args.y[row * args.width + column] =
              from_float<T>(value_of<kind>(to_float(from[0])) * to_float(from[args.width]));
        });
  });
}

// y is dx (N, 2F) and may be x.
extern "C" __global__ void __launch_bounds__(threads) gated_backward(Gated args) {
  with_kind(args.kind, [=](auto tag) {
    constexpr int kind = decltype(tag)::value;
    for_gated(
        args,
        [=](int64_t row, int64_t column) {
          const int64_t at = row * 2 * args.width + column;
          float gate[count], factor[count], dy[count];
          const Pack<T> gate_pack = load_pack_streaming(args.x + at),
                        factor_pack = load_pack_streaming(args.x + at + args.width),
                        dy_pack = load_pack_streaming(args.dy + row * args.width + column);
          unpack(gate_pack, gate);
          unpack(factor_pack, factor);
          unpack(dy_pack, dy);
#pragma unroll
          for (int i = 0; i < count; i++) {
            factor[i] *= dy[i] * derivative_of<kind>(gate[i]);
            gate[i] = dy[i] * value_of<kind>(gate[i]);
          }
          store_pack(args.y + at, pack_of(factor));
          store_pack(args.y + at + args.width, pack_of(gate));
        },
        [=](int64_t row, int64_t column) {
          const int64_t at = row * 2 * args.width + column;
          const float gate = to_float(args.x[at]), factor = to_float(args.x[at + args.width]);
          const float dy = to_float(args.dy[row * args.width + column]);
          args.y[at] = from_float<T>(dy * derivative_of<kind>(gate) * factor);
          args.y[at + args.width] = from_float<T>(dy * value_of<kind>(gate));
        });
  });
}

// ---- codes of activated rows ----

struct ActivationCodes {
  const T* x;
  uint8_t* codes;
  float* scales;
  int64_t x_row_stride;
  int32_t width;
  int32_t kind;
  int32_t is_gated;
};

__device__ __forceinline__ float stored(float value) { return to_float(from_float<T>(value)); }

template <int packs>
__device__ __forceinline__ void activate_row(const ActivationCodes& args) {
  __shared__ float scratch[32];
  allow_next_kernel();
  const int num_packs = args.width / count;
  wait_for_previous_kernel();
  const T* x = args.x + blockIdx.x * args.x_row_stride;
  uint4 raw[packs], factors[packs];
#pragma unroll
  for (int p = 0; p < packs; p++) {
    const int pack = threadIdx.x + p * blockDim.x;
    raw[p] = pack < num_packs ? load_16_streaming(x + pack * count) : uint4{};
    factors[p] = args.is_gated && pack < num_packs ? load_16_streaming(x + args.width + pack * count) : uint4{};
  }
  float values[packs][count];
  float peak = 0.0f;
  with_kind(args.kind, [&](auto tag) {
#pragma unroll
    for (int p = 0; p < packs; p++) {
      unpack(as_pack<T>(raw[p]), values[p]);
#pragma unroll
      for (int i = 0; i < count; i++) values[p][i] = value_of<decltype(tag)::value>(values[p][i]);
    }
  });
#pragma unroll
  for (int p = 0; p < packs; p++) {
    if (args.is_gated) {
      float factor[count];
      unpack(as_pack<T>(factors[p]), factor);
#pragma unroll
      for (int i = 0; i < count; i++) values[p][i] *= factor[i];
    }
    const Pack<T> rounded = pack_of(values[p]);
    unpack(rounded, values[p]);
    // Beyond the row there may be what an activation makes of zeros.
    if (threadIdx.x + p * blockDim.x < num_packs) peak = larger_magnitude(peak, values[p]);
  }
  const RowScale found = row_scale(block_max(peak, scratch));
  if (threadIdx.x == 0) args.scales[blockIdx.x] = found.scale;
  uint8_t* codes = args.codes + int64_t(blockIdx.x) * args.width;
#pragma unroll
  for (int p = 0; p < packs; p++) {
    const int pack = threadIdx.x + p * blockDim.x;
    if (pack < num_packs) store_codes(codes + pack * count, values[p], found.inverse);
  }
}

#define ACTIVATION_CODES(packs)                                                                                                  \
  extern "C" __global__ void __launch_bounds__(512) activation_codes_packs_##packs(const __grid_constant__ ActivationCodes args) { \
    activate_row<packs>(args);                                                                                                   \
  }
ACTIVATION_CODES(1)
ACTIVATION_CODES(2)
ACTIVATION_CODES(4)

// Any width and alignment: the row is activated twice.
extern "C" __global__ void __launch_bounds__(threads) activation_codes_any(const __grid_constant__ ActivationCodes args) {
  __shared__ float scratch[32];
  begin_after_previous();
  const T* x = args.x + blockIdx.x * args.x_row_stride;
  uint8_t* codes = args.codes + int64_t(blockIdx.x) * args.width;
  with_kind(args.kind, [&](auto tag) {
    const auto value = [&](int c) {
      const float active = value_of<decltype(tag)::value>(to_float(x[c]));
      return stored(args.is_gated ? active * to_float(x[args.width + c]) : active);
    };
    float peak = 0.0f;
    for (int c = threadIdx.x; c < args.width; c += blockDim.x) peak = fmaxf(peak, fabsf(value(c)));
    const RowScale found = row_scale(block_max(peak, scratch));
    if (threadIdx.x == 0) args.scales[blockIdx.x] = found.scale;
    for (int c = threadIdx.x; c < args.width; c += blockDim.x) codes[c] = e4m3_code(value(c) * found.inverse);
  });
}
