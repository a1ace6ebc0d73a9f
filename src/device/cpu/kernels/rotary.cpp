/* Rotary positions (Su et al., "RoFormer", 2021): pairs (i, i + rotary_dim / 2) of each head turned by the row's angles. */
#include "vector.h"

namespace nt {
namespace {

template <class T>
void rotate_row(const nt_rotary_args& args, int64_t row) {
  const Elements<T> x(args.x), y(args.y);
  const int64_t half = args.rotary_dim / 2;
  const float* cosines = data<float>(args.cos_sin) + data<int32_t>(args.positions)[row] * args.rotary_dim;
  const vec sign = broadcast(args.inverse != 0 ? -1.0f : 1.0f);
  const bool copies_rest = x.at != y.at || args.x_row_stride != args.y_row_stride;
  for (int64_t head = 0; head < args.num_heads; head++) {
    const int64_t from = row * args.x_row_stride + head * args.head_dim;
    const int64_t to = row * args.y_row_stride + head * args.head_dim;
    for_vectors(0, half, [&](int64_t i, auto lanes) NT_INLINE {
      const vec cosine = load_vec(cosines + i, lanes), sine = sign * load_vec(cosines + half + i, lanes);
      const vec first = x.load(from + i, lanes), second = x.load(from + half + i, lanes);
      y.store(to + i, first * cosine - second * sine, lanes);
      y.store(to + half + i, second * cosine + first * sine, lanes);
    });
    if (!copies_rest) continue;
    for_vectors(args.rotary_dim, args.head_dim,
                [&](int64_t i, auto lanes) NT_INLINE { y.store(to + i, x.load(from + i, lanes), lanes); });
  }
}

}  // namespace

NT_OP(rotary) {
  if (args.positions.dtype != i32 || args.cos_sin.dtype != f32) return unsupported;
  return dispatch_elements({args.x, args.y}, [&](auto tag) {
    const int64_t grain = max<int64_t>(1, pointwise_grain / max<int64_t>(args.num_heads * args.head_dim, 1));
    parallel_for(args.num_rows, grain, [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; row++) rotate_row<typename decltype(tag)::type>(args, row);
    });
  });
}

}  // namespace nt
