// Rotary positions: the first rotary_dim components of every head, as pairs (i, i + rotary_dim / 2), turned by an angle per row and
// pair. In place on a fused QKV row only the turned components move. A thread keeps its cosines and sines for several heads.
// rotary_cache_write_* do it on the way into a paged cache. T is the type of all tensors but the positions, slots and angles.
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

// `lanes` neighbours, a pack or one element, of data that are read once.
template <int lanes>
__device__ __forceinline__ auto load_once(const T* from) {
  if constexpr (lanes == 1) {
    return *from;
  } else {
    return load_pack_streaming(from);
  }
}
__device__ __forceinline__ void unpack(T value, float (&values)[1]) { values[0] = to_float(value); }
__device__ __forceinline__ void store(T* to, T value) { *to = value; }
__device__ __forceinline__ void store(T* to, const Pack<T>& pack) { store_pack(to, pack); }
template <int lanes>
__device__ __forceinline__ void store(T* to, const float (&values)[lanes]) {
  if constexpr (lanes == 1) {
    *to = from_float<T>(values[0]);
  } else {
    store_pack(to, pack_of(values));
  }
}

// The products that are rounded before the sum are named, so that every kernel here gives the same bits.
template <int lanes>
__device__ __forceinline__ void turn(float (&first)[lanes], float (&second)[lanes], const float (&cosines)[lanes],
                                     const float (&sines)[lanes]) {
#pragma unroll
  for (int i = 0; i < lanes; i++) {
    const float turned = fmaf(first[i], cosines[i], -(second[i] * sines[i]));
    second[i] = fmaf(second[i], cosines[i], first[i] * sines[i]);
    first[i] = turned;
  }
}

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
    float first[count], second[count];
    unpack(load_pack(from), first);
    unpack(load_pack(from + half), second);
    turn(first, second, cosines, sines);
    store(to, first);
    store(to + half, second);
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
  const float cosine[1] = {angles[0]}, sine[1] = {angles[half] * args.sine_sign};
  const T* from = args.x + row * args.x_row_stride + int64_t(head) * args.head_dim + pair;
  T* to = args.y + row * args.y_row_stride + int64_t(head) * args.head_dim + pair;
  float first[1] = {to_float(from[0])}, second[1] = {to_float(from[half])};
  turn(first, second, cosine, sine);
  store(to, first);
  store(to + half, second);
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

// ---- into a paged cache ----

struct RotaryCacheWrite {
  T* q;
  const T* k;
  const T* v;
  const int32_t* positions;
  const float* cos_sin;
  const int32_t* slots;
  T* k_cache;
  T* v_cache;
  int64_t q_row_stride;
  int64_t k_row_stride;
  int64_t v_row_stride;
  int num_heads;
  int num_kv_heads;
  int head_dim;
  int rotary_dim;
};

// The cosines and sines of neighbouring pairs, from a row of the table.
template <int lanes>
__device__ __forceinline__ void load_angles(const float* row, int half, int pair, float (&cosines)[lanes], float (&sines)[lanes]) {
  if constexpr (lanes == 1) {
    cosines[0] = row[pair];
    sines[0] = row[half + pair];
  } else {
    load_floats(row, false, pair, cosines);
    load_floats(row, false, half + pair, sines);
  }
}

// blockIdx.x is the row; its work is numbered over blockIdx.y and the threads: the pairs of the query heads and of the key heads, what
// rests of the key heads, the values. Places are found while the predecessor ends; after it two loads are waited for, one after the
// other: position and angles, slot and what goes there.
template <int lanes>
__device__ __forceinline__ void rotate_into_cache(const RotaryCacheWrite& args) {
  allow_next_kernel();
  const int64_t row = blockIdx.x;
  const int item = blockIdx.y * blockDim.x + threadIdx.x;
  const int half = args.rotary_dim / 2, width = args.num_kv_heads * args.head_dim;
  const int pairs = half / lanes, resting = (args.head_dim - args.rotary_dim) / lanes;
  const int copied = item - (args.num_heads + args.num_kv_heads) * pairs;
  const int value = copied - args.num_kv_heads * resting;
  const bool is_query = item < args.num_heads * pairs, turns = copied < 0, is_value = value >= 0;
  const int index = turns ? item : copied, per_head = turns ? pairs : larger(resting, 1);
  const int head = index / per_head - (turns && !is_query ? args.num_heads : 0);
  const int within = index % per_head * lanes + (turns ? 0 : args.rotary_dim);
  const int at = is_value ? value * lanes : head * args.head_dim + within;
  T* const query = args.q + row * args.q_row_stride + at;
  const T* const from = is_query   ? query
                        : is_value ? args.v + row * args.v_row_stride + at
                                   : args.k + row * args.k_row_stride + at;
  T* const cache = (is_value ? args.v_cache : args.k_cache) + at;
  wait_for_previous_kernel();
  if (turns) {
    const float* const angles = args.cos_sin + int64_t(args.positions[row]) * args.rotary_dim;
    float first[lanes], second[lanes], cosines[lanes], sines[lanes];
    unpack(load_once<lanes>(from), first);
    unpack(load_once<lanes>(from + half), second);
    load_angles(angles, half, within, cosines, sines);
    turn(first, second, cosines, sines);
    const int slot = args.slots[row];
    if (!is_query && slot < 0) return;
    T* const to = is_query ? query : cache + int64_t(slot) * width;
    store(to, first);
    store(to + half, second);
  } else if (at < width) {
    const auto values = load_once<lanes>(from);
    const int slot = args.slots[row];
    if (slot >= 0) store(cache + int64_t(slot) * width, values);
  }
}

// Needs whole packs, as rotary_packs does, and rows of angles that 16-byte accesses reach.
extern "C" __global__ void __launch_bounds__(threads) rotary_cache_write_packs(RotaryCacheWrite args) {
  rotate_into_cache<count>(args);
}
extern "C" __global__ void __launch_bounds__(threads) rotary_cache_write_singles(RotaryCacheWrite args) {
  rotate_into_cache<1>(args);
}
