/* Normal random numbers: Philox words turned by the Box-Muller transform. Each element depends on (seed, counter, index) alone. */
#include "philox.h"
#include "vector_math.h"

namespace nt {
namespace {

constexpr int64_t per_step = 4 * width; /* numbers of one vector of counters */

/* Numbers 4 * block .. 4 * block + per_step - 1 of the stream. */
NT_INLINE inline void normal_numbers(uint64_t seed, uint64_t counter, float mean, float std, float* out) {
  uvec words[4];
  philox(seed, counter, words);
  float lanes[4][width];
  for (int pair = 0; pair < 2; pair++) {
    const vec radius = square_root(-2.0f * log(1.0f - uniform(words[2 * pair])));
    vec sine, cosine;
    sine_cosine(uniform(words[2 * pair + 1]), sine, cosine);
    store_vec(lanes[2 * pair], mean + std * (radius * cosine));
    store_vec(lanes[2 * pair + 1], mean + std * (radius * sine));
  }
  for (int i = 0; i < width; i++)
    for (int word = 0; word < 4; word++) out[4 * i + word] = lanes[word][i];
}

}  // namespace

NT_OP(random_normal) {
  return dispatch_float(args.y.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* y = data<T>(args.y);
    const float mean = static_cast<float>(args.mean), std = static_cast<float>(args.std);
    parallel_for(args.num_elements, pointwise_grain, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; i += per_step) {
        alignas(64) float numbers[per_step];
        normal_numbers(static_cast<uint64_t>(args.seed), static_cast<uint64_t>(args.counter + i / 4), mean, std, numbers);
        const int64_t count = min(per_step, end - i);
        for_vectors(0, count, [&](int64_t j, auto lanes) NT_INLINE { store_vec(y + i + j, load_vec(numbers + j, lanes), lanes); });
      }
    });
  });
}

}  // namespace nt
