// AdamW over flat memory of any length (64-bit indices). Every operand is f32 or bf16 by a run-time flag; a thread has two quads of
// each under way, and rounding is to nearest or, for bf16 states, stochastic from one Philox block per element.
// Source: Loshchilov and Hutter, "Decoupled weight decay regularization", 2019.
#include "philox.cuh"

struct Adamw {
  void* param;
  float* master;
  const void* grad;
  void* m;
  void* v;
  const float* coefficient;
  int64_t num_elements;
  int64_t seed;
  int64_t counter;
  // 1: param is bf16; 2: grad; 4: m; 8: v.
  int flags;
  float learning_rate;
  float beta1;
  float one_minus_beta1;
  float beta2;
  float one_minus_beta2;
  // 1 / (1 - beta^step)
  float correction1;
  float correction2;
  float eps;
  float weight_decay;
};

constexpr int threads = 256;
constexpr int quads_per_thread = 2;
// launch/optimizer.ts counts its blocks by this.
constexpr int64_t quads_per_block = threads * quads_per_thread;

// Stochastic rounding leaves no room for time, and makes the last bits of the quotient worthless.
template <bool is_stochastic>
__device__ __forceinline__ void update(const Adamw& args, float g, float& w, float& m, float& v) {
  m = args.beta1 * m + args.one_minus_beta1 * g;
  v = args.beta2 * v + args.one_minus_beta2 * g * g;
  const float m_hat = m * args.correction1, v_hat = v * args.correction2;
  const float quotient =
      is_stochastic ? __fdividef(m_hat, fast_sqrt(v_hat) + args.eps) : m_hat / (sqrtf(v_hat) + args.eps);
  w = w - args.learning_rate * (quotient + args.weight_decay * w);
}

// The f32 whose rounding to bf16 is that of x, away from zero with the probability of what lies beyond the kept bits.
__device__ __forceinline__ float stochastic(float x, uint32_t random_bits) {
  if (!isfinite(x)) return x;
  return __uint_as_float((__float_as_uint(x) + (random_bits & 0xffffu)) & 0xffff0000u);
}

// bf16 weights and second moments, by the low and the high half of an element's random word.
__device__ __forceinline__ void round_states(const Adamw& args, uint32_t random, float& w, float& v) {
  if (args.master == nullptr && (args.flags & 1)) w = stochastic(w, random);
  if (args.flags & 8) v = stochastic(v, random >> 16);
}

__device__ __forceinline__ uint32_t word_of(uint4 words, int index) {
  return index == 0 ? words.x : index == 1 ? words.y : index == 2 ? words.z : words.w;
}

template <bool is_stochastic>
__device__ __forceinline__ void step(const Adamw& args) {
  const float coefficient = args.coefficient[0];
  if (!isfinite(coefficient)) return;
  const bool param_bf16 = args.flags & 1, grad_bf16 = args.flags & 2, m_bf16 = args.flags & 4, v_bf16 = args.flags & 8;
  // What the weight is read from.
  const void* weight = args.master == nullptr ? args.param : args.master;
  const bool weight_bf16 = args.master == nullptr && param_bf16;
  const bool is_aligned = is_quad_aligned(args.param, param_bf16) && is_quad_aligned(args.master, false) &&
                          is_quad_aligned(args.grad, grad_bf16) && is_quad_aligned(args.m, m_bf16) &&
                          is_quad_aligned(args.v, v_bf16);
  const int64_t num_quads = is_aligned ? args.num_elements / 4 : 0;
  const int64_t first = blockIdx.x * quads_per_block + threadIdx.x;
  Quad raw_g[quads_per_thread], raw_w[quads_per_thread], raw_m[quads_per_thread], raw_v[quads_per_thread];
#pragma unroll
  for (int i = 0; i < quads_per_thread; i++) {
    const int64_t quad = first + i * threads;
    if (quad >= num_quads) continue;
    raw_g[i] = load_quad(args.grad, grad_bf16, quad);
    raw_w[i] = load_quad(weight, weight_bf16, quad);
    raw_m[i] = load_quad(args.m, m_bf16, quad);
    raw_v[i] = load_quad(args.v, v_bf16, quad);
  }
#pragma unroll
  for (int i = 0; i < quads_per_thread; i++) {
    const int64_t quad = first + i * threads;
    if (quad >= num_quads) continue;
    float g[4], w[4], m[4], v[4];
    decode_quad(raw_g[i], grad_bf16, g);
    decode_quad(raw_w[i], weight_bf16, w);
    decode_quad(raw_m[i], m_bf16, m);
    decode_quad(raw_v[i], v_bf16, v);
    // One block of random words serves the quad: one for each element would cost more time than the memory.
    uint4 random{};
    if constexpr (is_stochastic) random = philox(args.seed, args.counter + quad);
#pragma unroll
    for (int j = 0; j < 4; j++) {
      update<is_stochastic>(args, g[j] * coefficient, w[j], m[j], v[j]);
      if constexpr (is_stochastic) round_states(args, word_of(random, j), w[j], v[j]);
    }
    store_quad(args.m, m_bf16, quad, m);
    store_quad(args.v, v_bf16, quad, v);
    if (args.master != nullptr) store_quad(args.master, false, quad, w);
    store_quad(args.param, param_bf16, quad, w);
  }
  for (int64_t i = num_quads * 4 + int64_t(blockIdx.x) * threads + threadIdx.x; i < args.num_elements;
       i += int64_t(gridDim.x) * threads) {
    float w = load_any(weight, weight_bf16, i), m = load_any(args.m, m_bf16, i), v = load_any(args.v, v_bf16, i);
    update<is_stochastic>(args, load_any(args.grad, grad_bf16, i) * coefficient, w, m, v);
    if constexpr (is_stochastic) {
      round_states(args, word_of(philox(args.seed, args.counter + i / 4), static_cast<int>(i % 4)), w, v);
    }
    store_any(args.m, m_bf16, i, m);
    store_any(args.v, v_bf16, i, v);
    if (args.master != nullptr) args.master[i] = w;
    store_any(args.param, param_bf16, i, w);
  }
}

extern "C" __global__ void __launch_bounds__(threads) adamw_nearest(Adamw args) { step<false>(args); }
extern "C" __global__ void __launch_bounds__(threads) adamw_stochastic(Adamw args) { step<true>(args); }

// ---- weights, gradients and moments in bf16 without a master: 14 bytes an element, which is what bounds a step's update ----

// The bits whose upper half is the stochastic rounding of x to bf16. Infinity has nothing below its upper half to carry; NaN may.
__device__ __forceinline__ uint32_t stochastic_bits(float x, uint32_t random_16) {
  const uint32_t bits = __float_as_uint(x);
  return x == x ? bits + random_16 : bits;
}

// Everything is aligned to 16 bytes. A thread takes eight neighbours at once, a whole access of each operand.
extern "C" __global__ void __launch_bounds__(threads) adamw_bf16(Adamw args) {
  const float coefficient = args.coefficient[0];
  if (!isfinite(coefficient)) return;
  constexpr int count = Pack<bf16>::count;
  bf16 *w_address = static_cast<bf16*>(args.param), *m_address = static_cast<bf16*>(args.m),
       *v_address = static_cast<bf16*>(args.v);
  const bf16* g_address = static_cast<const bf16*>(args.grad);
  const int64_t num_packs = args.num_elements / count;
  const int64_t pack = int64_t(blockIdx.x) * threads + threadIdx.x;
  const float rate = args.learning_rate * args.correction1, decay = -args.learning_rate * args.weight_decay;
  const auto update_one = [&](float g, float& w, float& m, float& v) {
    g *= coefficient;
    m = args.beta1 * m + args.one_minus_beta1 * g;
    v = args.beta2 * v + args.one_minus_beta2 * g * g;
    w += decay * w - rate * m * fast_reciprocal(fast_sqrt(v * args.correction2) + args.eps);
  };
  if (pack < num_packs) {
    const int64_t at = pack * count;
    const Pack<bf16> raw_g = load_pack_streaming(g_address + at), raw_w = load_pack_streaming(w_address + at),
                     raw_m = load_pack_streaming(m_address + at), raw_v = load_pack_streaming(v_address + at);
    const uint4 random[2] = {philox(args.seed, args.counter + 2 * pack), philox(args.seed, args.counter + 2 * pack + 1)};
    float g[count], w[count], m[count], v[count];
    unpack(raw_g, g);
    unpack(raw_w, w);
    unpack(raw_m, m);
    unpack(raw_v, v);
    uint32_t w_bits[count], v_bits[count];
#pragma unroll
    for (int i = 0; i < count; i++) {
      update_one(g[i], w[i], m[i], v[i]);
      const uint32_t word = word_of(random[i / 4], i % 4);
      w_bits[i] = stochastic_bits(w[i], word & 0xffffu);
      v_bits[i] = stochastic_bits(v[i], word >> 16);
    }
    const auto halves = [](const uint32_t(&bits)[count]) {
      return as_pack<bf16>({upper_halves(bits[0], bits[1]), upper_halves(bits[2], bits[3]),
                            upper_halves(bits[4], bits[5]), upper_halves(bits[6], bits[7])});
    };
    store_pack_streaming(m_address + at, pack_of(m));
    store_pack_streaming(v_address + at, halves(v_bits));
    store_pack_streaming(w_address + at, halves(w_bits));
  }
  // The last few elements, by the first block.
  const int64_t i = num_packs * count + threadIdx.x;
  if (blockIdx.x != 0 || i >= args.num_elements) return;
  float w = to_float(w_address[i]), m = to_float(m_address[i]), v = to_float(v_address[i]);
  update_one(to_float(g_address[i]), w, m, v);
  const uint32_t word = word_of(philox(args.seed, args.counter + i / 4), static_cast<int>(i % 4));
  m_address[i] = from_float<bf16>(m);
  v_address[i] = {static_cast<uint16_t>(stochastic_bits(v, word >> 16) >> 16)};
  w_address[i] = {static_cast<uint16_t>(stochastic_bits(w, word & 0xffffu) >> 16)};
}
