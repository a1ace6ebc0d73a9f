// Attention backward on the tensor cores, deterministic: one kernel owns tiles of keys and adds up dk and dv over all queries (and all
// heads of a group), another owns tiles of queries and adds up dq over all keys. The scores are computed in both, which costs two
// of seven products and needs no atomic addition. Products are laid out so that a result is the next product's operand in
// registers. Defines: HEAD_DIM (padded head size). bf16 only. Source: Dao, "FlashAttention-2", 2023.
#include "attention_tiles.cuh"

struct Backward {
  const bf16* q;
  const bf16* k;
  const bf16* v;
  const bf16* o;
  const bf16* doutput;
  const float* log_sum_exp;
  const int32_t* cu_seq_lens;
  bf16* dq;
  bf16* dk;
  bf16* dv;
  // (H, rows): the product of o and doutput.
  float* deltas;
  int64_t num_rows;
  int64_t q_row_stride;
  int64_t k_row_stride;
  int64_t v_row_stride;
  int64_t o_row_stride;
  int query_length;
  int key_length;
  int num_heads;
  int num_kv_heads;
  int head_dim;
  int causal;
  float scale;
};

constexpr bool is_wide = HEAD_DIM > 128;
constexpr int steps = HEAD_DIM / 16;

// ---- products of o and doutput ----

// Threads per row and head.
constexpr int delta_lanes = HEAD_DIM == 64 ? 8 : HEAD_DIM == 128 ? 16 : 32;
constexpr int delta_threads = 256;

extern "C" __global__ void __launch_bounds__(delta_threads) attention_deltas(Backward args) {
  const int64_t item = (int64_t(blockIdx.x) * delta_threads + threadIdx.x) / delta_lanes;
  const int64_t row = item / args.num_heads;
  const int head = static_cast<int>(item - row * args.num_heads);
  const int dim = static_cast<int>(threadIdx.x % delta_lanes) * 8;
  float sum = 0.0f;
  if (row < args.num_rows && dim < args.head_dim) {
    const int64_t at = row * args.o_row_stride + int64_t(head) * args.head_dim + dim;
    float o[8], gradient[8];
    unpack(load_pack_streaming(args.o + at), o);
    unpack(load_pack(args.doutput + at), gradient);
#pragma unroll
    for (int i = 0; i < 8; i++) sum += o[i] * gradient[i];
  }
#pragma unroll
  for (int offset = delta_lanes / 2; offset > 0; offset >>= 1) sum += __shfl_xor_sync(full_mask, sum, offset);
  if (row < args.num_rows && dim == 0) args.deltas[head * args.num_rows + row] = sum;
}

// ---- dk and dv ----

namespace keys {
constexpr int num_warps = 8;
constexpr int threads = num_warps * 32;
// Warps that share 16 keys and take a part each of the head's components.
constexpr int dim_parts = is_wide ? 2 : 1;
constexpr int block_keys = 16 * num_warps / dim_parts;
constexpr int block_queries = is_wide ? 32 : 64;
constexpr int products = HEAD_DIM / 8 / dim_parts;
constexpr int query_tile_bytes = block_queries * row_bytes;
}  // namespace keys

// Grid (key tiles, G, sequences); dynamic shared memory: tiles of k and v, two stages of tiles of q and doutput, and per stage the
// queries' log-sum-exps (in base 2) and deltas.
extern "C" __global__ void __launch_bounds__(keys::threads) attention_key_gradient(Backward args) {
  using namespace keys;
  const SharedAddress k_tile = shared_address(dynamic_shared);
  const SharedAddress v_tile = k_tile + block_keys * row_bytes;
  const SharedAddress query_tiles = v_tile + block_keys * row_bytes;
  float* statistics = reinterpret_cast<float*>(reinterpret_cast<char*>(dynamic_shared) + 2 * block_keys * row_bytes + 4 * query_tile_bytes);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
  const int warp_key = warp / dim_parts * 16, part = warp % dim_parts;
  const int kv_head = blockIdx.y, sequence = blockIdx.z;
  const Segment segment = segment_of(sequence, args.cu_seq_lens, args.query_length, args.key_length);
  const int first_key = blockIdx.x * block_keys;
  if (first_key >= segment.key_length) return;
  // Query t sees keys up to t + offset.
  const int offset = segment.key_length - segment.query_length;
  const int first_tile = args.causal ? larger(0, first_key - offset) / block_queries : 0;
  const int tiles_per_head = larger(0, ceil_div(segment.query_length, block_queries) - first_tile);
  // The heads h with floor(h G / H) = kv_head.
  const int first_head = ceil_div(kv_head * args.num_heads, args.num_kv_heads);
  const int end_head = ceil_div((kv_head + 1) * args.num_heads, args.num_kv_heads);
  const int num_items = tiles_per_head * (end_head - first_head);

  const auto load_queries = [&](int item, int stage) {
    const int head = first_head + item / tiles_per_head;
    const int first_query = (first_tile + item % tiles_per_head) * block_queries;
    const int num_valid = segment.query_length - first_query;
    const int64_t first_row = segment.query_start + first_query;
    const int64_t column = int64_t(head) * args.head_dim;
    const SharedAddress tile = query_tiles + stage * 2 * query_tile_bytes;
    load_tile<block_queries, threads>(tile, num_valid, args.head_dim,
                                      [&](int row) { return args.q + (first_row + row) * args.q_row_stride + column; });
    load_tile<block_queries, threads>(tile + query_tile_bytes, num_valid, args.head_dim, [&](int row) {
      return args.doutput + (first_row + row) * args.o_row_stride + column;
    });
    commit_copies();
    if (threadIdx.x < block_queries) {
      const bool is_valid = static_cast<int>(threadIdx.x) < num_valid;
      const int64_t at = head * args.num_rows + first_row + threadIdx.x;
      float* stage_statistics = statistics + stage * 2 * block_queries;
      // Infinity gives queries that do not exist no weight.
      stage_statistics[threadIdx.x] = is_valid ? args.log_sum_exp[at] * log2_of_e : infinity;
      stage_statistics[block_queries + threadIdx.x] = is_valid ? args.deltas[at] : 0.0f;
    }
  };

  const int64_t kv_column = int64_t(kv_head) * args.head_dim;
  const int64_t first_key_row = segment.key_start + first_key;
  const int num_valid_keys = segment.key_length - first_key;
  load_tile<block_keys, threads>(k_tile, num_valid_keys, args.head_dim,
                                 [&](int row) { return args.k + (first_key_row + row) * args.k_row_stride + kv_column; });
  load_tile<block_keys, threads>(v_tile, num_valid_keys, args.head_dim,
                                 [&](int row) { return args.v + (first_key_row + row) * args.v_row_stride + kv_column; });
  if (num_items > 0) load_queries(0, 0);
  const float scale_log2 = args.scale * log2_of_e;

  float dk[products][4] = {}, dv[products][4] = {};
  for (int item = 0; item < num_items; item++) {
    const int stage = item & 1;
    wait_for_copies<0>();
    __syncthreads();
    if (item + 1 < num_items) load_queries(item + 1, stage ^ 1);
    const SharedAddress q_tile = query_tiles + stage * 2 * query_tile_bytes, doutput_tile = q_tile + query_tile_bytes;
    const float* log_sums = statistics + stage * 2 * block_queries;
    const float* deltas = log_sums + block_queries;
    const int first_query = (first_tile + item % tiles_per_head) * block_queries;

    // Transposed: keys by queries.
    float weights[block_queries / 8][4] = {};
    const SharedAddress k_lane = opaque(lane_address(k_tile + warp_key * row_bytes));
    const SharedAddress q_lane = opaque(lane_address_transposed(q_tile));
#pragma unroll
    for (int step = 0; step < steps; step++) {
      uint32_t k[4];
      load_matrices(k, fragment(k_lane, 0, step));
#pragma unroll
      for (int n = 0; n < block_queries / 16; n++) {
        uint32_t q[4];
        load_matrices(q, fragment(q_lane, n * 16, step));
        multiply_add(weights[2 * n], k, q[0], q[1]);
        multiply_add(weights[2 * n + 1], k, q[2], q[3]);
      }
    }
    const bool needs_mask = first_key + warp_key + 16 > segment.key_length ||
                            (args.causal && first_key + warp_key + 15 > first_query + offset);
#pragma unroll
    for (int n = 0; n < block_queries / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int in_tile = n * 8 + 2 * t + (i & 1);
        const float weight = fast_exp2(weights[n][i] * scale_log2 - log_sums[in_tile]);
        const int key = first_key + warp_key + (i >> 1) * 8 + g;
        const bool is_hidden = needs_mask && (key >= segment.key_length || (args.causal && key > first_query + in_tile + offset));
        weights[n][i] = is_hidden ? 0.0f : weight;
      }
    }
    const SharedAddress gradient_rows_lane = opaque(lane_address(doutput_tile));
#pragma unroll
    for (int n = 0; n < block_queries / 16; n++) {
      uint32_t tall[4];
      as_tall(tall, weights[2 * n], weights[2 * n + 1]);
#pragma unroll
      for (int step = 0; step < products / 2; step++) {
        uint32_t gradient[4];
        load_matrices_transposed(gradient, fragment(gradient_rows_lane, n * 16, part * (products / 2) + step));
        multiply_add(dv[2 * step], tall, gradient[0], gradient[1]);
        multiply_add(dv[2 * step + 1], tall, gradient[2], gradient[3]);
      }
    }
    float dscores[block_queries / 8][4] = {};
    const SharedAddress v_lane = opaque(lane_address(v_tile + warp_key * row_bytes));
    const SharedAddress gradient_lane = opaque(lane_address_transposed(doutput_tile));
#pragma unroll
    for (int step = 0; step < steps; step++) {
      uint32_t v[4];
      load_matrices(v, fragment(v_lane, 0, step));
#pragma unroll
      for (int n = 0; n < block_queries / 16; n++) {
        uint32_t gradient[4];
        load_matrices(gradient, fragment(gradient_lane, n * 16, step));
        multiply_add(dscores[2 * n], v, gradient[0], gradient[1]);
        multiply_add(dscores[2 * n + 1], v, gradient[2], gradient[3]);
      }
    }
#pragma unroll
    for (int n = 0; n < block_queries / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) dscores[n][i] = weights[n][i] * (dscores[n][i] - deltas[n * 8 + 2 * t + (i & 1)]);
    }
    const SharedAddress q_rows_lane = opaque(lane_address(q_tile));
#pragma unroll
    for (int n = 0; n < block_queries / 16; n++) {
      uint32_t tall[4];
      as_tall(tall, dscores[2 * n], dscores[2 * n + 1]);
#pragma unroll
      for (int step = 0; step < products / 2; step++) {
        uint32_t q[4];
        load_matrices_transposed(q, fragment(q_rows_lane, n * 16, part * (products / 2) + step));
        multiply_add(dk[2 * step], tall, q[0], q[1]);
        multiply_add(dk[2 * step + 1], tall, q[2], q[3]);
      }
    }
  }

  wait_for_copies<0>();
  __syncthreads();
#pragma unroll
  for (int n = 0; n < products; n++) {
#pragma unroll
    for (int i = 0; i < 4; i++) dk[n][i] *= args.scale;
  }
  bf16* tiles = reinterpret_cast<bf16*>(dynamic_shared);
  store_rows<products>(tiles, warp_key, dk, args.head_dim, part * products, [&](int row) -> bf16* {
    return row < num_valid_keys ? args.dk + (first_key_row + row) * args.k_row_stride + kv_column : nullptr;
  });
  store_rows<products>(tiles + block_keys * HEAD_DIM, warp_key, dv, args.head_dim, part * products, [&](int row) -> bf16* {
    return row < num_valid_keys ? args.dv + (first_key_row + row) * args.v_row_stride + kv_column : nullptr;
  });
}

// ---- dq ----

namespace queries {
constexpr int num_warps = is_wide ? 4 : 8;
constexpr int threads = num_warps * 32;
constexpr int block_queries = 16 * num_warps;
constexpr int block_keys = is_wide ? 32 : 64;
constexpr int key_tile_bytes = block_keys * row_bytes;
}  // namespace queries

// Grid (query tiles, H, sequences); dynamic shared memory: tiles of q and doutput, two stages of tiles of k and v.
extern "C" __global__ void __launch_bounds__(queries::threads) attention_query_gradient(Backward args) {
  using namespace queries;
  const SharedAddress q_tile = shared_address(dynamic_shared);
  const SharedAddress doutput_tile = q_tile + block_queries * row_bytes;
  const SharedAddress key_tiles = doutput_tile + block_queries * row_bytes;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
  const int head = blockIdx.y, sequence = blockIdx.z;
  const int kv_head = static_cast<int>(int64_t(head) * args.num_kv_heads / args.num_heads);
  const Segment segment = segment_of(sequence, args.cu_seq_lens, args.query_length, args.key_length);
  const int num_query_tiles = ceil_div(segment.query_length, block_queries);
  // The tiles with the most keys begin first.
  const int query_tile = num_query_tiles - 1 - static_cast<int>(blockIdx.x);
  if (query_tile < 0) return;
  const int first_query = query_tile * block_queries;
  const int offset = segment.key_length - segment.query_length;
  const int num_keys =
      args.causal ? larger(0, smaller(segment.key_length, first_query + block_queries + offset)) : segment.key_length;
  const int num_key_tiles = ceil_div(num_keys, block_keys);

  const int64_t kv_column = int64_t(kv_head) * args.head_dim;
  const auto load_keys = [&](int key_tile, int stage) {
    const int num_valid = segment.key_length - key_tile * block_keys;
    const int64_t first_row = segment.key_start + key_tile * block_keys;
    const SharedAddress tile = key_tiles + stage * 2 * key_tile_bytes;
    load_tile<block_keys, threads>(tile, num_valid, args.head_dim,
                                   [&](int row) { return args.k + (first_row + row) * args.k_row_stride + kv_column; });
    load_tile<block_keys, threads>(tile + key_tile_bytes, num_valid, args.head_dim,
                                   [&](int row) { return args.v + (first_row + row) * args.v_row_stride + kv_column; });
    commit_copies();
  };
  const int64_t column = int64_t(head) * args.head_dim;
  const int64_t first_row = segment.query_start + first_query;
  const int num_valid_queries = segment.query_length - first_query;
  load_tile<block_queries, threads>(q_tile, num_valid_queries, args.head_dim,
                                    [&](int row) { return args.q + (first_row + row) * args.q_row_stride + column; });
  load_tile<block_queries, threads>(doutput_tile, num_valid_queries, args.head_dim,
                                    [&](int row) { return args.doutput + (first_row + row) * args.o_row_stride + column; });
  if (num_key_tiles > 0) load_keys(0, 0);
  const float scale_log2 = args.scale * log2_of_e;
  float log_sums[2], deltas[2];
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int row = warp * 16 + half * 8 + g;
    const int64_t at = head * args.num_rows + first_row + row;
    log_sums[half] = row < num_valid_queries ? args.log_sum_exp[at] * log2_of_e : infinity;
    deltas[half] = row < num_valid_queries ? args.deltas[at] : 0.0f;
  }

  float dq[HEAD_DIM / 8][4] = {};
  for (int key_tile = 0; key_tile < num_key_tiles; key_tile++) {
    const int stage = key_tile & 1;
    wait_for_copies<0>();
    __syncthreads();
    if (key_tile + 1 < num_key_tiles) load_keys(key_tile + 1, stage ^ 1);
    const SharedAddress k_tile = key_tiles + stage * 2 * key_tile_bytes, v_tile = k_tile + key_tile_bytes;
    const int first_key = key_tile * block_keys;

    float weights[block_keys / 8][4] = {}, dscores[block_keys / 8][4] = {};
    const SharedAddress q_lane = opaque(lane_address(q_tile + warp * 16 * row_bytes));
    const SharedAddress k_lane = opaque(lane_address_transposed(k_tile));
    const SharedAddress gradient_lane = opaque(lane_address(doutput_tile + warp * 16 * row_bytes));
    const SharedAddress v_lane = opaque(lane_address_transposed(v_tile));
#pragma unroll
    for (int step = 0; step < steps; step++) {
      uint32_t q[4], gradient[4];
      load_matrices(q, fragment(q_lane, 0, step));
      load_matrices(gradient, fragment(gradient_lane, 0, step));
#pragma unroll
      for (int n = 0; n < block_keys / 16; n++) {
        uint32_t k[4], v[4];
        load_matrices(k, fragment(k_lane, n * 16, step));
        multiply_add(weights[2 * n], q, k[0], k[1]);
        multiply_add(weights[2 * n + 1], q, k[2], k[3]);
        load_matrices(v, fragment(v_lane, n * 16, step));
        multiply_add(dscores[2 * n], gradient, v[0], v[1]);
        multiply_add(dscores[2 * n + 1], gradient, v[2], v[3]);
      }
    }
    const bool needs_mask = first_key + block_keys > segment.key_length ||
                            (args.causal && first_key + block_keys - 1 > first_query + warp * 16 + offset);
#pragma unroll
    for (int n = 0; n < block_keys / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float weight = fast_exp2(weights[n][i] * scale_log2 - log_sums[i >> 1]);
        const int key = first_key + n * 8 + 2 * t + (i & 1);
        const int query = first_query + warp * 16 + (i >> 1) * 8 + g;
        const bool is_hidden = needs_mask && (key >= segment.key_length || (args.causal && key > query + offset));
        dscores[n][i] = is_hidden ? 0.0f : weight * (dscores[n][i] - deltas[i >> 1]);
      }
    }
    const SharedAddress k_rows_lane = opaque(lane_address(k_tile));
#pragma unroll
    for (int n = 0; n < block_keys / 16; n++) {
      uint32_t tall[4];
      as_tall(tall, dscores[2 * n], dscores[2 * n + 1]);
#pragma unroll
      for (int step = 0; step < steps; step++) {
        uint32_t k[4];
        load_matrices_transposed(k, fragment(k_rows_lane, n * 16, step));
        multiply_add(dq[2 * step], tall, k[0], k[1]);
        multiply_add(dq[2 * step + 1], tall, k[2], k[3]);
      }
    }
  }

  wait_for_copies<0>();
  __syncthreads();
#pragma unroll
  for (int n = 0; n < HEAD_DIM / 8; n++) {
#pragma unroll
    for (int i = 0; i < 4; i++) dq[n][i] *= args.scale;
  }
  store_rows<HEAD_DIM / 8>(reinterpret_cast<bf16*>(dynamic_shared), warp * 16, dq, args.head_dim, 0, [&](int row) -> bf16* {
    return row < num_valid_queries ? args.dq + (first_row + row) * args.q_row_stride + column : nullptr;
  });
}
