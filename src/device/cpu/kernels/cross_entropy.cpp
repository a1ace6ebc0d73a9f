/*
 * Cross-entropy per row, and the logits turned into their gradient in place: one pass for the log of the sum of exponentials,
 * scaled anew where a higher logit appears (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018), and one
 * that writes.
 */
#include "vector_math.h"

namespace nt {
namespace {

/* Logits looked at for their maximum before they are exponentiated: in the first-level cache. */
constexpr int64_t chunk = 2048;

/* Lanes that are not data are -infinity: they add nothing. */
template <class T>
float log_sum_exp(const T* logits, int64_t count) {
  float highest = -INFINITY;
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += chunk) {
    const int64_t end = min(begin + chunk, count);
    vec top = broadcast(-INFINITY);
    for_vectors(begin, end, [&](int64_t i, auto lanes) NT_INLINE {
      top = max(or_else(load_vec(logits + i, lanes), lanes, -INFINITY), top);
    });
    const float before = highest;
    highest = max(highest, max_of(top));
    if (highest > before) total *= std::exp(static_cast<double>(before) - highest);
    const vec centre = broadcast(highest == -INFINITY ? 0 : highest);
    vec sum{};
    for_vectors(begin, end, [&](int64_t i, auto lanes) NT_INLINE {
      sum += exp(or_else(load_vec(logits + i, lanes), lanes, -INFINITY) - centre);
    });
    total += sum_of(sum);
  }
  return static_cast<float>(highest + std::log(total));
}

template <class T>
void write_gradient(T* logits, int64_t count, int64_t target, float log_sum, float scale) {
  const float own = (std::exp(load(logits + target) - log_sum) - 1) * scale;
  const vec centre = broadcast(log_sum), factor = broadcast(scale);
  for_vectors(0, count, [&](int64_t i, auto lanes) NT_INLINE {
    store_vec(logits + i, exp(load_vec(logits + i, lanes) - centre) * factor, lanes);
  });
  store(logits + target, own);
}

}  // namespace

NT_OP(cross_entropy) {
  if (args.targets.dtype != i32 || args.losses.dtype != f32) return unsupported;
  const int32_t* targets = data<int32_t>(args.targets);
  float* losses = data<float>(args.losses);
  if (args.row_scales.data != nullptr && args.row_scales.dtype != f32) return unsupported;
  const float* row_scales = data<float>(args.row_scales);
  return dispatch_float(args.logits.dtype, [&](auto tag) -> int32_t {
    using T = typename decltype(tag)::type;
    for (int64_t row = 0; row < args.num_rows; row++)
      if (targets[row] != args.ignore_index && (targets[row] < 0 || targets[row] >= args.vocab_size)) return bad_argument;
    parallel_for(args.num_rows, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; row++) {
        T* logits = data<T>(args.logits) + row * args.vocab_size;
        if (targets[row] == args.ignore_index) {
          losses[row] = 0;
          if (args.write_gradient != 0) std::memset(static_cast<void*>(logits), 0, static_cast<size_t>(args.vocab_size) * sizeof(T));
          continue;
        }
        const float log_sum = log_sum_exp(logits, args.vocab_size);
        losses[row] = log_sum - load(logits + targets[row]);
        if (args.write_gradient != 0) {
          const float scale = static_cast<float>(args.gradient_scale) * (row_scales == nullptr ? 1.0f : row_scales[row]);
          write_gradient(logits, args.vocab_size, targets[row], log_sum, scale);
        }
      }
    });
    return ok;
  });
}

}  // namespace nt
