/*
 * The global norm's clipping factor and AdamW (Loshchilov and Hutter, 2019) in one pass over parameter, gradient and moments,
 * with any mixture of f32 and bf16 states, and stochastic rounding of bf16 weights and second moments from counter-based random numbers.
 */
#include "philox.h"
#include "vector_math.h"

namespace nt {
namespace {

struct Constants {
  vec beta1, beta2, new1, new2, correction1, correction2, learning_rate, eps, weight_decay, factor;

  Constants(const nt_adamw_args& args, float coefficient)
      : beta1(broadcast(static_cast<float>(args.beta1))),
        beta2(broadcast(static_cast<float>(args.beta2))),
        new1(broadcast(static_cast<float>(1 - args.beta1))),
        new2(broadcast(static_cast<float>(1 - args.beta2))),
        correction1(broadcast(static_cast<float>(1 / (1 - std::pow(args.beta1, static_cast<double>(args.step)))))),
        correction2(broadcast(static_cast<float>(1 / (1 - std::pow(args.beta2, static_cast<double>(args.step)))))),
        learning_rate(broadcast(static_cast<float>(args.learning_rate))),
        eps(broadcast(static_cast<float>(args.eps))),
        weight_decay(broadcast(static_cast<float>(args.weight_decay))),
        factor(broadcast(coefficient)) {}
};

/* x rounded to bf16, away from zero with the probability of what is cut off; the infinite and NaN stay. */
NT_INLINE inline vec round_stochastically(vec x, uvec random) {
  const uvec bits = (uvec)x;
  const uvec is_finite = (uvec)((bits & 0x7fffffffu) < 0x7f800000u);
  return (vec)((bits + (random & 0xffffu & is_finite)) & ((is_finite << 16) | ~is_finite));
}

/* Random words of consecutive elements: word i mod 4 of block (seed, counter + i / 4), made for 8 * width elements at a time. */
class RandomWords {
 public:
  RandomWords(uint64_t seed, uint64_t counter) : seed_(seed), counter_(counter) {}

  /* Of the elements i, i + 1, ...; i grows from call to call. */
  NT_INLINE uvec at(int64_t i) {
    if (i < begin_ || i + width > begin_ + 2 * count) refill(i - i % 4);
    uvec random;
    std::memcpy(&random, words_ + (i - begin_), sizeof random);
    return random;
  }

 private:
  static constexpr int64_t count = 4 * width;

  void refill(int64_t begin) {
    begin_ = begin;
    for (int64_t part = 0; part < 2; part++) {
      uvec words[4];
      philox(seed_, counter_ + static_cast<uint64_t>(begin / 4 + part * width), words);
      for (int64_t block = 0; block < width; block++) {
        for (int64_t word = 0; word < 4; word++) words_[part * count + 4 * block + word] = words[word][block];
      }
    }
  }

  uint64_t seed_, counter_;
  int64_t begin_ = -2 * count;
  uint32_t words_[2 * count];
};

template <class T, bool is_stochastic>
void update(const nt_adamw_args& args, const Constants& k, int64_t begin, int64_t end) {
  const Elements<T> param(args.param), grad(args.grad), m(args.m), v(args.v);
  float* master = data<float>(args.master);
  const bool rounds_param = is_stochastic && master == nullptr && args.param.dtype == bf16_code;
  const bool rounds_v = is_stochastic && args.v.dtype == bf16_code;
  RandomWords random_words(static_cast<uint64_t>(args.seed), static_cast<uint64_t>(args.counter));
  for_vectors(begin, end, [&](int64_t i, auto lanes) NT_INLINE {
    const vec g = grad.load(i, lanes) * k.factor;
    vec next_m = k.beta1 * m.load(i, lanes) + k.new1 * g;
    vec next_v = k.beta2 * v.load(i, lanes) + k.new2 * g * g;
    const vec w = master != nullptr ? load_vec(master + i, lanes) : param.load(i, lanes);
    const vec ratio = (next_m * k.correction1) / (square_root(next_v * k.correction2) + k.eps);
    vec next = w - k.learning_rate * (ratio + k.weight_decay * w);
    if constexpr (is_stochastic) {
      const uvec random = random_words.at(i);
      if (rounds_param) next = round_stochastically(next, random);
      if (rounds_v) next_v = round_stochastically(next_v, random >> 16);
    }
    if (master != nullptr) store_vec(master + i, next, lanes);
    param.store(i, next, lanes);
    m.store(i, next_m, lanes);
    v.store(i, next_v, lanes);
  });
}

}  // namespace

NT_OP(clip_coefficient) {
  if (args.sum_of_squares.dtype != f64 || args.norm.dtype != f32 || args.coefficient.dtype != f32) return unsupported;
  const double norm = args.gradient_scale * std::sqrt(*data<double>(args.sum_of_squares));
  /* Finite as the f32 that is stored. */
  const bool is_skipped = !std::isfinite(static_cast<float>(norm)) || (args.skip_above_norm > 0 && norm > args.skip_above_norm);
  const double factor = args.max_norm == 0 ? 1 : min(1.0, args.max_norm / (norm + 1e-6));
  *data<float>(args.norm) = static_cast<float>(norm);
  *data<float>(args.coefficient) = is_skipped ? NAN : static_cast<float>(args.gradient_scale * factor);
  return ok;
}

NT_OP(adamw) {
  if (args.coefficient.dtype != f32 || (args.master.data != nullptr && args.master.dtype != f32)) return unsupported;
  const float coefficient = *data<float>(args.coefficient);
  const Constants constants(args, coefficient);
  return dispatch_elements({args.param, args.grad, args.m, args.v}, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (!std::isfinite(coefficient)) return;
    parallel_for(args.num_elements, pointwise_grain, [&](int64_t begin, int64_t end, int) {
      if (args.stochastic_rounding != 0) update<T, true>(args, constants, begin, end);
      else update<T, false>(args, constants, begin, end);
    });
  });
}

}  // namespace nt
