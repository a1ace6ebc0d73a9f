// Rotary positions: the first rotary_dim components of every head, as pairs (i, i + rotary_dim / 2), turned by an angle per row and
// pair. In place on a fused QKV row only the turned components move. A thread keeps its cosines and sines for several heads.
// Source: Su et al., "RoFormer", 2021, in the half-split form of GPT-NeoX.

struct Rotary {
  const T* x;
  const int32_t* positions;
  const float* cos_sin;
  T* y;
  int64_t num_rows;
  int64_t x_row_stride;
  int64_t y_row_stride;
  int num_heads;
  int head_dim;
  int rotary_dim;
  int heads_per_thread;
  float sine_sign;
};

constexpr int count = Pack<T>::count;
constexpr int threads = 256;

// Threads are numbered by (row, group of heads, pack of pairs). Needs whole packs: half of rotary_dim, head_dim, strides, addresses.
extern "C" __global__ void __launch_bounds__(threads) rotary_packs(Rotary args) {
  begin_after_previous();
  const int half = args.rotary_dim / 2;
  const int packs = half / count;
  const int groups = ceil_div(args.num_heads, args.heads_per_thread);
  const int64_t thread = int64_t(blockIdx.x) * threads + threadIdx.x;
  const int64_t row = thread / (packs * groups);
  if (row >= args.num_rows) return;
  const int within = static_cast<int>(thread - row * (packs * groups));
  const int group = within / packs, pair = within % packs * count;
  const float* angles = args.cos_sin + int64_t(args.positions[row]) * args.rotary_dim + pair;
  float cosines[count], sines[count];
#pragma unroll
  for (int i = 0; i < count; i++) {
    cosines[i] = angles[i];
    sines[i] = angles[half + i] * args.sine_sign;
  }
  const int first_head = group * args.heads_per_thread;
  const int last_head = smaller(args.num_heads, first_head + args.heads_per_thread);
#pragma unroll 4
  for (int head = first_head; head < last_head; head++) {
    const T* from = args.x + row * args.x_row_stride + int64_t(head) * args.head_dim + pair;
    T* to = args.y + row * args.y_row_stride + int64_t(head) * args.head_dim + pair;
    float first[count], second[count], turned_first[count], turned_second[count];
    unpack(load_pack(from), first);
    unpack(load_pack(from + half), second);
#pragma unroll
    for (int i = 0; i < count; i++) {
      turned_first[i] = first[i] * cosines[i] - second[i] * sines[i];
      turned_second[i] = second[i] * cosines[i] + first[i] * sines[i];
    }
    store_pack(to, pack_of(turned_first));
    store_pack(to + half, pack_of(turned_second));
  }
}

// Any layout: one thread per pair and head.
extern "C" __global__ void __launch_bounds__(threads) rotary_singles(Rotary args) {
  begin_after_previous();
  const int half = args.rotary_dim / 2;
  const int64_t pairs_per_row = int64_t(args.num_heads) * half;
  const int64_t thread = int64_t(blockIdx.x) * threads + threadIdx.x;
  if (thread >= args.num_rows * pairs_per_row) return;
  const int64_t row = thread / pairs_per_row;
  const int within = static_cast<int>(thread - row * pairs_per_row);
  const int head = within / half, pair = within % half;
  const float* angles = args.cos_sin + int64_t(args.positions[row]) * args.rotary_dim + pair;
  const float cosine = angles[0], sine = angles[half] * args.sine_sign;
  const T* from = args.x + row * args.x_row_stride + int64_t(head) * args.head_dim + pair;
  T* to = args.y + row * args.y_row_stride + int64_t(head) * args.head_dim + pair;
  const float first = to_float(from[0]), second = to_float(from[half]);
  to[0] = from_float<T>(first * cosine - second * sine);
  to[half] = from_float<T>(second * cosine + first * sine);
}

// The components that do not turn, where y is not x.
extern "C" __global__ void __launch_bounds__(threads) rotary_rest(Rotary args) {
  const int rest = args.head_dim - args.rotary_dim;
  const int64_t rest_per_row = int64_t(args.num_heads) * rest;
  const int64_t thread = int64_t(blockIdx.x) * threads + threadIdx.x;
  if (thread >= args.num_rows * rest_per_row) return;
  const int64_t row = thread / rest_per_row;
  const int within = static_cast<int>(thread - row * rest_per_row);
  const int64_t at = int64_t(within / rest) * args.head_dim + args.rotary_dim + within % rest;
  args.y[row * args.y_row_stride + at] = args.x[row * args.x_row_stride + at];
}
