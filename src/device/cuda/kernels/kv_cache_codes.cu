// Rows of keys and values into their slots of a paged cache of E4M3 codes, and the same with rotary positions, which turn queries in place and
// keys on the way, in the bits of rotary.cu. A negative slot skips its row's key and value. T is the type of q, k and v. A warp makes
// one head of a row.
#include "kv_codes.cuh"

constexpr int threads = 256;
constexpr int num_warps = threads / 32;

struct CodesWrite {
  // Without heads of queries: none.
  T* q;
  const T* k;
  const T* v;
  const int32_t* positions;
  const float* cos_sin;
  const int32_t* slots;
  // (num_slots, G, D) codes and (G, num_slots) scales.
  e4m3* k_cache;
  e4m3* v_cache;
  float* k_scales;
  float* v_scales;
  int64_t num_rows;
  int64_t num_slots;
  int64_t q_row_stride;
  int64_t k_row_stride;
  int64_t v_row_stride;
  int num_heads;
  int num_kv_heads;
  int head_dim;
  // 0 where nothing turns.
  int rotary_dim;
};

// Component i of a head that is turned by a row of the table of angles, rounded to T. The product that is rounded before the sum is the one of
// rotary.cu.
__device__ __forceinline__ float turned(const T* head, const float* angles, int rotary_dim, int i) {
  const float own = to_float(head[i]);
  if (i >= rotary_dim) return own;
  const int half = rotary_dim / 2;
  const bool is_first = i < half;
  const int pair = is_first ? i : i - half;
  const float other = to_float(head[is_first ? i + half : pair]), sine = angles[half + pair];
  return to_float(from_float<T>(fmaf(own, angles[pair], other * (is_first ? -sine : sine))));
}

__device__ __forceinline__ void turn_query(T* head, const float* angles, int rotary_dim) {
  const int half = rotary_dim / 2;
  for (int i = threadIdx.x & 31; i < half; i += 32) {
    const float first = turned(head, angles, rotary_dim, i), second = turned(head, angles, rotary_dim, i + half);
    head[i] = from_float<T>(first);
    head[i + half] = from_float<T>(second);
  }
}

// Warps are numbered by row and head: H queries, G keys, G values.
extern "C" __global__ void __launch_bounds__(threads) kv_cache_write_codes(CodesWrite args) {
  begin_after_previous();
  const int lane = threadIdx.x & 31, heads = args.num_heads + 2 * args.num_kv_heads;
  const int64_t warp = int64_t(blockIdx.x) * num_warps + (threadIdx.x >> 5);
  const int64_t row = warp / heads;
  if (row >= args.num_rows) return;
  const int head = static_cast<int>(warp - row * heads), kv_head = head - args.num_heads;
  const float* const angles =
      args.rotary_dim == 0 ? nullptr : args.cos_sin + int64_t(args.positions[row]) * args.rotary_dim;
  if (kv_head < 0) {
    turn_query(args.q + row * args.q_row_stride + int64_t(head) * args.head_dim, angles, args.rotary_dim);
    return;
  }
  const int64_t slot = args.slots[row];
  if (slot < 0) return;
  const bool is_value = kv_head >= args.num_kv_heads;
  const int group = is_value ? kv_head - args.num_kv_heads : kv_head;
  const int rotary_dim = is_value ? 0 : args.rotary_dim;
  const T* const from = is_value ? args.v + row * args.v_row_stride + int64_t(group) * args.head_dim
                                 : args.k + row * args.k_row_stride + int64_t(group) * args.head_dim;
  float peak = 0.0f;
  for (int i = lane; i < args.head_dim; i += 32) peak = fmaxf(peak, fabsf(turned(from, angles, rotary_dim, i)));
  const RowScale scale = row_scale(peak_of_lanes<32>(peak));
  e4m3* const to = (is_value ? args.v_cache : args.k_cache) + (slot * args.num_kv_heads + group) * args.head_dim;
  for (int i = lane; i < args.head_dim; i += 32) to[i] = {e4m3_code(turned(from, angles, rotary_dim, i) * scale.inverse)};
  if (lane == 0) (is_value ? args.v_scales : args.k_scales)[group * args.num_slots + slot] = scale.scale;
}
