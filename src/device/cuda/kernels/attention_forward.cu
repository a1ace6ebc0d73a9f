// Attention forward on the tensor cores, in memory linear in the lengths: each warp keeps 16 * ROW_TILES query rows with a running
// softmax, and the block walks over tiles of keys. Keys and values come from rows (PAGED 0) or from the slots of a paged
// cache (PAGED 1), which may hold E4M3 codes (CODES 1). The copy of the next keys runs under the softmax and the second product, that of
// the values under the first. Codes are copied as they are and widened to bf16, which holds them exactly, when they have come; the scales of
// keys join at the scores, those of values at the weights.
// Defines: HEAD_DIM (padded head size), ROW_TILES, PAGED, CODES. bf16 but for the codes. Source: Dao, "FlashAttention-2", 2023.
#include "attention_tiles.cuh"
#if CODES
#include "kv_codes.cuh"
using Cached = e4m3;
#else
using Cached = bf16;
#endif

struct Forward {
  const bf16* q;
  const Cached* k;
  const Cached* v;
  // Rows: null or (sequences + 1). Paged: where each sequence's query rows begin (sequences + 1).
  const int32_t* starts;
  bf16* o;
  float* log_sum_exp;
  // Paged: (sequences, max_blocks) and (sequences).
  const int32_t* block_tables;
  const int32_t* context_lengths;
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
  int block_size;
  int block_shift;
  int max_blocks;
  // scale * log2 e
  float scale_log2;
#if CODES
  // (G, num_slots)
  const float* k_scales;
  const float* v_scales;
  int64_t num_slots;
#endif
};

constexpr int num_warps = 4;
constexpr int threads = num_warps * 32;
constexpr int warp_rows = 16 * ROW_TILES;
constexpr int block_rows = warp_rows * num_warps;
constexpr int block_keys = 64;
constexpr int steps = HEAD_DIM / 16;

#if CODES
// Codes of a tile of keys or values as they are copied: each thread widens what it has copied itself, so that its own wait is enough.
constexpr int code_pieces = HEAD_DIM / 16;
constexpr int code_pieces_per_thread = block_keys * code_pieces / threads;
static_assert(block_keys * code_pieces % threads == 0, "whole turns of the block");

template <class RowAddress>
__device__ __forceinline__ void copy_codes(SharedAddress staged, int num_valid, int head_dim, RowAddress row_address) {
#pragma unroll
  for (int i = 0; i < code_pieces_per_thread; i++) {
    const int at = i * threads + threadIdx.x;
    const int row = at / code_pieces, piece = at % code_pieces;
    const bool is_valid = row < num_valid && piece * 16 < head_dim;
    const e4m3* source = row_address(row < num_valid ? row : 0) + (is_valid ? piece * 16 : 0);
    copy_16_async(staged + at * 16, source, is_valid);
  }
  commit_copies();
}
__device__ __forceinline__ void widen_codes(const uint4* staged, bf16* tile) {
#pragma unroll
  for (int i = 0; i < code_pieces_per_thread; i++) {
    const int at = i * threads + threadIdx.x;
    const int row = at / code_pieces, piece = at % code_pieces;
    const uint4 raw = staged[at];
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float low[4], high[4];
      e4m3_values(words[2 * half], low);
      e4m3_values(words[2 * half + 1], high);
      *reinterpret_cast<uint4*>(piece_in(tile, row, 2 * piece + half)) = {bf16x2_bits(low[0], low[1]), bf16x2_bits(low[2], low[3]),
                                                                           bf16x2_bits(high[0], high[1]), bf16x2_bits(high[2], high[3])};
    }
  }
}
#endif

// Grid (query tiles, H, sequences); dynamic shared memory holds the query tile, a key tile and a value tile; with CODES 1 the codes of both, too.
extern "C" __global__ void __launch_bounds__(threads) attention_forward(Forward args) {
  const SharedAddress q_tile = shared_address(dynamic_shared);
  const SharedAddress k_tile = q_tile + block_rows * row_bytes;
  const SharedAddress v_tile = k_tile + block_keys * row_bytes;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
  const int head = blockIdx.y, sequence = blockIdx.z;
  const int kv_head = static_cast<int>(int64_t(head) * args.num_kv_heads / args.num_heads);
#if PAGED
  const int query_start = args.starts[sequence];
  const Segment segment = {query_start, 0, args.starts[sequence + 1] - query_start, args.context_lengths[sequence]};
  // Single rows are the decoding kernel's.
  if (segment.query_length <= 1) return;
#else
  const Segment segment = segment_of(sequence, args.starts, args.query_length, args.key_length);
#endif
  const int num_query_tiles = ceil_div(segment.query_length, block_rows);
  // The tiles with the most keys begin first.
  const int query_tile = num_query_tiles - 1 - static_cast<int>(blockIdx.x);
  if (query_tile < 0) return;
  const int first_query = query_tile * block_rows;
  // Query t sees keys up to t + offset.
  const int offset = segment.key_length - segment.query_length;
  const int num_keys =
      args.causal ? larger(0, smaller(segment.key_length, first_query + block_rows + offset)) : segment.key_length;
  const int num_key_tiles = ceil_div(num_keys, block_keys);

  const bf16* q_head = args.q + segment.query_start * args.q_row_stride + int64_t(head) * args.head_dim;
#if PAGED
  const auto slot_of = [&](int key) {
    const int block = args.block_shift >= 0 ? key >> args.block_shift : key / args.block_size;
    const int in_block = key - block * args.block_size;
    return args.block_tables[int64_t(sequence) * args.max_blocks + block] * int64_t(args.block_size) + in_block;
  };
#endif
#if CODES
  __shared__ float k_scales[block_keys], v_scales[block_keys];
  uint4* const k_codes = reinterpret_cast<uint4*>(reinterpret_cast<bf16*>(dynamic_shared) + (block_rows + 2 * block_keys) * HEAD_DIM);
  uint4* const v_codes = k_codes + block_keys * code_pieces;
  const int64_t first_scale = kv_head * args.num_slots;
  const auto load_keys = [&](uint4* staged, const e4m3* head_rows, int64_t stride, int first_key, const float* from, float* scales) {
    const int num_valid = segment.key_length - first_key;
    copy_codes(shared_address(staged), num_valid, args.head_dim, [&](int row) { return head_rows + slot_of(first_key + row) * stride; });
    if (threadIdx.x < block_keys)
      scales[threadIdx.x] = int(threadIdx.x) < num_valid ? from[first_scale + slot_of(first_key + threadIdx.x)] : 0.0f;
  };
#else
  const auto load_keys = [&](SharedAddress tile, const bf16* head_rows, int64_t stride, int first_key) {
    load_tile<block_keys, threads>(tile, segment.key_length - first_key, args.head_dim, [&](int row) {
      const int key = first_key + row;
#if PAGED
      return head_rows + slot_of(key) * stride;
#else
      return head_rows + (segment.key_start + key) * stride;
#endif
    });
    commit_copies();
  };
#endif
  const Cached* k_head = args.k + int64_t(kv_head) * args.head_dim;
  const Cached* v_head = args.v + int64_t(kv_head) * args.head_dim;

  // Warps beyond the last query only help to load.
  const bool has_rows = first_query + warp * warp_rows < segment.query_length;
  float output[ROW_TILES][HEAD_DIM / 8][4] = {};
  float high[ROW_TILES][2], sum[ROW_TILES][2];
#pragma unroll
  for (int r = 0; r < ROW_TILES; r++) high[r][0] = high[r][1] = -infinity, sum[r][0] = sum[r][1] = 0.0f;

  load_tile<block_rows, threads>(q_tile, segment.query_length - first_query, args.head_dim,
                                 [&](int row) { return q_head + (first_query + row) * args.q_row_stride; });
  const auto begin_keys = [&](int first_key) {
#if CODES
    load_keys(k_codes, k_head, args.k_row_stride, first_key, args.k_scales, k_scales);
#else
    load_keys(k_tile, k_head, args.k_row_stride, first_key);
#endif
  };
  if (num_key_tiles > 0) begin_keys(0);
  for (int key_tile = 0; key_tile < num_key_tiles; key_tile++) {
    const int first_key = key_tile * block_keys;
    wait_for_copies<0>();
    __syncthreads();
#if CODES
    load_keys(v_codes, v_head, args.v_row_stride, first_key, args.v_scales, v_scales);
    widen_codes(k_codes, reinterpret_cast<bf16*>(dynamic_shared) + block_rows * HEAD_DIM);
    __syncthreads();
#else
    load_keys(v_tile, v_head, args.v_row_stride, first_key);
#endif

    float scores[ROW_TILES][block_keys / 8][4] = {};
    if (has_rows) {
      const SharedAddress q_lane = opaque(lane_address(q_tile + warp * warp_rows * row_bytes));
      const SharedAddress k_lane = opaque(lane_address_transposed(k_tile));
#pragma unroll
      for (int step = 0; step < steps; step++) {
        uint32_t q[ROW_TILES][4];
#pragma unroll
        for (int r = 0; r < ROW_TILES; r++) load_matrices(q[r], fragment(q_lane, r * 16, step));
#pragma unroll
        for (int n = 0; n < block_keys / 16; n++) {
          uint32_t k[4];
          load_matrices(k, fragment(k_lane, n * 16, step));
#pragma unroll
          for (int r = 0; r < ROW_TILES; r++) {
            multiply_add(scores[r][2 * n], q[r], k[0], k[1]);
            multiply_add(scores[r][2 * n + 1], q[r], k[2], k[3]);
          }
        }
      }
#if CODES
#pragma unroll
      for (int n = 0; n < block_keys / 8; n++) {
        const float scale[2] = {k_scales[n * 8 + 2 * t], k_scales[n * 8 + 2 * t + 1]};
#pragma unroll
        for (int r = 0; r < ROW_TILES; r++) {
#pragma unroll
          for (int i = 0; i < 4; i++) scores[r][n][i] *= scale[i & 1];
        }
      }
#endif
    }
    wait_for_copies<0>();
#if CODES
    widen_codes(v_codes, reinterpret_cast<bf16*>(dynamic_shared) + (block_rows + block_keys) * HEAD_DIM);
#endif
    __syncthreads();
    if (key_tile + 1 < num_key_tiles) begin_keys(first_key + block_keys);

    if (!has_rows) continue;
    const bool needs_mask = first_key + block_keys > segment.key_length ||
                            (args.causal && first_key + block_keys - 1 > first_query + warp * warp_rows + offset);
    if (needs_mask) {
#pragma unroll
      for (int r = 0; r < ROW_TILES; r++) {
#pragma unroll
        for (int n = 0; n < block_keys / 8; n++) {
#pragma unroll
          for (int i = 0; i < 4; i++) {
            const int key = first_key + n * 8 + 2 * t + (i & 1);
            const int query = first_query + warp * warp_rows + r * 16 + (i >> 1) * 8 + g;
            if (key >= segment.key_length || (args.causal && key > query + offset)) scores[r][n][i] = -infinity;
          }
        }
      }
    }
#pragma unroll
    for (int r = 0; r < ROW_TILES; r++) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        float top = high[r][half];
#pragma unroll
        for (int n = 0; n < block_keys / 8; n++)
          top = fmaxf(top, fmaxf(scores[r][n][2 * half], scores[r][n][2 * half + 1]));
        top = row_max(top);
        const float base = top == -infinity ? 0.0f : top * args.scale_log2;
        const float factor = fast_exp2(high[r][half] * args.scale_log2 - base);
        high[r][half] = top;
        float added = 0.0f;
#pragma unroll
        for (int n = 0; n < block_keys / 8; n++) {
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; i++) {
            scores[r][n][i] = fast_exp2(scores[r][n][i] * args.scale_log2 - base);
            added += scores[r][n][i];
          }
        }
        sum[r][half] = sum[r][half] * factor + added;
#pragma unroll
        for (int d = 0; d < HEAD_DIM / 8; d++) {
          output[r][d][2 * half] *= factor;
          output[r][d][2 * half + 1] *= factor;
        }
      }
    }
    const SharedAddress v_lane = opaque(lane_address(v_tile));
#pragma unroll
    for (int n = 0; n < block_keys / 16; n++) {
      uint32_t weights[ROW_TILES][4];
#pragma unroll
      for (int r = 0; r < ROW_TILES; r++) {
#if CODES
#pragma unroll
        for (int i = 0; i < 4; i++) {
          scores[r][2 * n][i] *= v_scales[n * 16 + 2 * t + (i & 1)];
          scores[r][2 * n + 1][i] *= v_scales[n * 16 + 8 + 2 * t + (i & 1)];
        }
#endif
        as_tall(weights[r], scores[r][2 * n], scores[r][2 * n + 1]);
      }
#pragma unroll
      for (int step = 0; step < steps; step++) {
        uint32_t v[4];
        load_matrices_transposed(v, fragment(v_lane, n * 16, step));
#pragma unroll
        for (int r = 0; r < ROW_TILES; r++) {
          multiply_add(output[r][2 * step], weights[r], v[0], v[1]);
          multiply_add(output[r][2 * step + 1], weights[r], v[2], v[3]);
        }
      }
    }
  }

  // A tile without keys has not waited for its queries yet.
  wait_for_copies<0>();
  __syncthreads();
  bf16* o_head = args.o + segment.query_start * args.o_row_stride + int64_t(head) * args.head_dim;
#pragma unroll
  for (int r = 0; r < ROW_TILES; r++) {
    const int first_row = warp * warp_rows + r * 16;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const float total = row_sum(sum[r][half]);
      const float over_total = total == 0.0f ? 0.0f : 1.0f / total;
#pragma unroll
      for (int d = 0; d < HEAD_DIM / 8; d++) {
        output[r][d][2 * half] *= over_total;
        output[r][d][2 * half + 1] *= over_total;
      }
      const int query = first_query + first_row + half * 8 + g;
      if (args.log_sum_exp != nullptr && t == 0 && query < segment.query_length)
        args.log_sum_exp[head * args.num_rows + segment.query_start + query] =
            total == 0.0f ? -infinity : (high[r][half] * args.scale_log2 + log2f(total)) * ln_of_2;
    }
    store_rows<HEAD_DIM / 8>(reinterpret_cast<bf16*>(dynamic_shared), first_row, output[r], args.head_dim, 0, [&](int row) -> bf16* {
      const int query = first_query + row;
      return query < segment.query_length ? o_head + query * args.o_row_stride : nullptr;
    });
  }
}
