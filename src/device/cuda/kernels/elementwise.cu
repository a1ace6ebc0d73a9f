// fill, convert, add, axpby, scaleRows and randomNormal: one pass over flat memory, 64-bit indices. f32 and bf16 operands mix freely where the
// types are run-time flags. Memory-bound: every thread has four independent accesses per operand under way.
#include "philox.cuh"

constexpr int threads = 256;
constexpr int quads_per_thread = 4;
// launch/elementwise.ts counts its blocks by this.
constexpr int64_t quads_per_block = threads * quads_per_thread;

__device__ __forceinline__ int64_t global_thread() { return int64_t(blockIdx.x) * threads + threadIdx.x; }
__device__ __forceinline__ int64_t num_global_threads() { return int64_t(gridDim.x) * threads; }

// y[i] = body(a[i], b[i]); b is not read where `reads_b` is false. Single elements do what quads leave over.
template <class Body>
__device__ __forceinline__ void map_quads(const void* a, bool a_bf16, const void* b, bool b_bf16, bool reads_b, void* y,
                                          bool y_bf16, int64_t num_elements, Body body) {
  const bool is_aligned =
      is_quad_aligned(a, a_bf16) && is_quad_aligned(y, y_bf16) && (!reads_b || is_quad_aligned(b, b_bf16));
  const int64_t num_quads = is_aligned ? num_elements / 4 : 0;
  const int64_t first = blockIdx.x * quads_per_block + threadIdx.x;
  Quad raw_a[quads_per_thread], raw_b[quads_per_thread] = {};
#pragma unroll
  for (int i = 0; i < quads_per_thread; i++) {
    const int64_t quad = first + i * threads;
    if (quad >= num_quads) continue;
    raw_a[i] = load_quad(a, a_bf16, quad);
    if (reads_b) raw_b[i] = load_quad(b, b_bf16, quad);
  }
#pragma unroll
  for (int i = 0; i < quads_per_thread; i++) {
    const int64_t quad = first + i * threads;
    if (quad >= num_quads) continue;
    float values_a[4], values_b[4], values_y[4];
    decode_quad(raw_a[i], a_bf16, values_a);
    decode_quad(raw_b[i], b_bf16, values_b);
#pragma unroll
    for (int j = 0; j < 4; j++) values_y[j] = body(values_a[j], values_b[j]);
    store_quad(y, y_bf16, quad, values_y);
  }
  for (int64_t i = num_quads * 4 + global_thread(); i < num_elements; i += num_global_threads())
    store_any(y, y_bf16, i, body(load_any(a, a_bf16, i), reads_b ? load_any(b, b_bf16, i) : 0.0f));
}

// Flag bits: 1 = the first operand is bf16, 2 = the second, 4 = the result.
extern "C" __global__ void __launch_bounds__(threads)
    add(const void* a, const void* b, void* y, int64_t num_elements, int flags) {
  map_quads(a, flags & 1, b, flags & 2, true, y, flags & 4, num_elements, [](float x, float z) { return x + z; });
}

// y = alpha x + beta y; y is not read with beta = 0.
extern "C" __global__ void __launch_bounds__(threads)
    axpby(const void* x, void* y, int64_t num_elements, int flags, float alpha, float beta) {
  const bool reads_y = beta != 0.0f;
  map_quads(x, flags & 1, y, flags & 4, reads_y, y, flags & 4, num_elements,
            [=](float a, float b) { return reads_y ? alpha * a + beta * b : alpha * a; });
}

// y[row] = row_scales[row] x[row].
extern "C" __global__ void __launch_bounds__(threads)
    scale_rows(const void* x, const float* row_scales, void* y, int64_t num_rows, int64_t width, int flags) {
  const bool x_bf16 = flags & 1, y_bf16 = flags & 4;
  const bool uses_quads = width % 4 == 0 && is_quad_aligned(x, x_bf16) && is_quad_aligned(y, y_bf16);
  const int64_t num_quads = uses_quads ? width / 4 : 0;
  for (int64_t row = blockIdx.x; row < num_rows; row += gridDim.x) {
    const float scale = row_scales[row];
    for (int64_t i = threadIdx.x; i < num_quads; i += threads) {
      float values[4];
      decode_quad(load_quad(x, x_bf16, row * num_quads + i), x_bf16, values);
#pragma unroll
      for (int j = 0; j < 4; j++) values[j] *= scale;
      store_quad(y, y_bf16, row * num_quads + i, values);
    }
    for (int64_t c = num_quads * 4 + threadIdx.x; c < width; c += threads)
      store_any(y, y_bf16, row * width + c, scale * load_any(x, x_bf16, row * width + c));
  }
}

// Between f32 and bf16.
extern "C" __global__ void __launch_bounds__(threads)
    convert_any(const void* x, void* y, int64_t num_elements, int flags) {
  map_quads(x, flags & 1, nullptr, false, false, y, flags & 4, num_elements, [](float a, float) { return a; });
}

// Of f64, the f32 that rounds on to any shorter type as the f64 itself would: truncated, with the last bit set where something
// was cut off (rounding to odd; Boldo and Melquiond, 2008).
__device__ __forceinline__ float odd_float(double x) {
  const float truncated = __double2float_rz(x);
  if (static_cast<double>(truncated) == x || x != x) return truncated;
  return __uint_as_float(__float_as_uint(truncated) | 1u);
}

template <class To, class From>
__device__ __forceinline__ To convert_one(From x) {
  return from_float<To>(to_float(x));
}
template <>
__device__ __forceinline__ bf16 convert_one<bf16, double>(double x) { return from_float<bf16>(odd_float(x)); }
template <>
__device__ __forceinline__ f16 convert_one<f16, double>(double x) { return from_float<f16>(odd_float(x)); }

#define CONVERSION(name, From, To)                                                                          \
  extern "C" __global__ void __launch_bounds__(threads) name(const From* x, To* y, int64_t num_elements) {  \
    for (int64_t i = global_thread(); i < num_elements; i += num_global_threads())                          \
      y[i] = convert_one<To, From>(x[i]);                                                                   \
  }
CONVERSION(convert_f32_f16, float, f16)
CONVERSION(convert_f32_f64, float, double)
CONVERSION(convert_bf16_f16, bf16, f16)
CONVERSION(convert_bf16_f64, bf16, double)
CONVERSION(convert_f16_f32, f16, float)
CONVERSION(convert_f16_bf16, f16, bf16)
CONVERSION(convert_f16_f64, f16, double)
CONVERSION(convert_f64_f32, double, float)
CONVERSION(convert_f64_bf16, double, bf16)
CONVERSION(convert_f64_f16, double, f16)

// Repeats an element, given as the 8 bytes that its repetition makes, so that any stretch of memory that starts at an element
// starts with the same bytes.
extern "C" __global__ void __launch_bounds__(threads)
    fill(uint8_t* y, int64_t num_bytes, uint64_t pattern, int element_bytes) {
  const int64_t misaligned = static_cast<int64_t>(reinterpret_cast<uint64_t>(y) & 15u);
  const int64_t head_bytes = smaller(num_bytes, misaligned == 0 ? 0ll : 16ll - misaligned);
  const int64_t num_vectors = (num_bytes - head_bytes) / 16;
  const uint32_t low = static_cast<uint32_t>(pattern), high = static_cast<uint32_t>(pattern >> 32);
  for (int64_t i = global_thread(); i < num_vectors; i += num_global_threads())
    store_16_streaming(y + head_bytes + i * 16, {low, high, low, high});
  const int64_t tail_start = head_bytes + num_vectors * 16;
  const int64_t num_single_bytes = head_bytes + (num_bytes - tail_start);
  for (int64_t i = global_thread(); i < num_single_bytes; i += num_global_threads()) {
    const int64_t at = i < head_bytes ? i : tail_start + (i - head_bytes);
    const int byte = static_cast<int>((at < head_bytes ? i : i - head_bytes) % element_bytes);
    y[at] = static_cast<uint8_t>(pattern >> (8 * byte));
  }
}

// The values of pair `words` (first, second) of a Philox block (Box and Muller, 1958).
__device__ __forceinline__ void normal_pair(uint32_t first, uint32_t second, float& even, float& odd) {
  const float radius = sqrtf(-2.0f * logf(1.0f - uniform_from_bits(first)));
  const float half_turns = 2.0f * uniform_from_bits(second);
  even = radius * cospif(half_turns);
  odd = radius * sinpif(half_turns);
}

extern "C" __global__ void __launch_bounds__(threads)
    random_normal(void* y, int64_t num_elements, int flags, int64_t seed, int64_t counter, float mean, float deviation) {
  const bool is_bf16 = flags & 4;
  const bool is_aligned = is_quad_aligned(y, is_bf16);
  const int64_t num_blocks = ceil_div<int64_t>(num_elements, 4);
  for (int64_t block = global_thread(); block < num_blocks; block += num_global_threads()) {
    const uint4 words = philox(seed, counter + block);
    float values[4];
    normal_pair(words.x, words.y, values[0], values[1]);
    normal_pair(words.z, words.w, values[2], values[3]);
#pragma unroll
    for (int j = 0; j < 4; j++) values[j] = mean + deviation * values[j];
    if (is_aligned && block * 4 + 4 <= num_elements) {
      store_quad(y, is_bf16, block, values);
      continue;
    }
#pragma unroll
    for (int j = 0; j < 4; j++)
      if (block * 4 + j < num_elements) store_any(y, is_bf16, block * 4 + j, values[j]);
  }
}
