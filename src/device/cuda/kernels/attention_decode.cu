// Attention of single query rows over a paged cache, bound by reading the keys and values once. A block owns one sequence, one key/value
// head with up to GROUP of its query heads, and one share ("split") of the context; the last block to store its part of several
// splits adds them up. How many splits a sequence really uses hangs on its length, which is read on the device, so a
// captured graph serves any length up to its maxima. rotary_attention_decode_* also turn the rows by their positions and store the keys and
// values of each sequence's last row, which no other row may read.
// Of a cache of E4M3 codes the scales of keys and values join at the score and at the weight.
// Defines: T (type of q, o and, but for codes, the cache), CODES (0 for a cache of T, else how many E4M3 codes an access takes), HEAD_DIM (a padded
// head size: 64, 128, 256), THREADS of a block, UNROLL (keys per lane and step), MIN_BLOCKS_1, _2 and _4 per multiprocessor, by query
// heads. Source: Dao et al., "Flash-Decoding", 2023.
#if CODES
#include "kv_codes.cuh"
using Cached = e4m3;
#else
using Cached = T;
#endif

struct Decode {
  const T* q;
  const Cached* k_cache;
  const Cached* v_cache;
  const int32_t* block_tables;
  const int32_t* context_lengths;
  const int32_t* query_starts;
  T* o;
  // (sequences, H, splits, D) and (sequences, H, splits, 2), where there is more than one split.
  float* partial_outputs;
  float* partial_sums;
  int64_t q_row_stride;
  int64_t o_row_stride;
  int num_heads;
  int num_kv_heads;
  int heads_per_kv_head;
  int head_dim;
  int block_size;
  // log2 of block_size, or -1.
  int block_shift;
  int max_blocks;
  int num_splits;
  // Tokens below which a further split does not pay.
  int min_split_tokens;
  // scale * log2 e
  float scale_log2;
#if CODES
  // (G, num_slots)
  const float* k_scales;
  const float* v_scales;
  int64_t num_slots;
#endif
};

// What rotary_attention_decode_* need beside: the newest row of each sequence, of which row i is sequence i's.
struct Newest {
  const T* k;
  const T* v;
  const int32_t* positions;
  const float* cos_sin;
  const int32_t* slots;
  Cached* k_cache;
  Cached* v_cache;
  int64_t k_row_stride;
  int64_t v_row_stride;
  int rotary_dim;
  // What nothing that may still run writes: the step's inputs, and beside them the caches.
  int are_inputs_settled;
  int are_caches_settled;
#if CODES
  float* k_scales;
  float* v_scales;
#endif
};

constexpr int threads = THREADS;
// What registers are shared out to: in a block of many threads more than there are, so that a product's block of 320 threads with 48 registers
// each fits beside it and streams its weight meanwhile.
constexpr int bound = threads < 512 ? threads : threads + 128;
constexpr int num_warps = threads / 32;
constexpr int count = Pack<T>::count;
// What a lane reads of a cached key or value in one access: a pack of T, or the codes of several packs side by side.
#if CODES
constexpr int piece_count = CODES;
using Piece = Codes<piece_count>;
__device__ __forceinline__ Piece load_piece(const Cached* address) { return load_codes_streaming<piece_count>(address); }
#else
constexpr int piece_count = count;
using Piece = Pack<T>;
__device__ __forceinline__ Piece load_piece(const Cached* address) { return load_pack_streaming(address); }
#endif
constexpr int packs_per_piece = piece_count / count;
constexpr int pieces_per_head = HEAD_DIM / piece_count;
// Lanes that share a key, and what a lane has of it: pieces, and the same in packs of T.
constexpr int lanes_per_key = pieces_per_head < 32 ? pieces_per_head : 32;
constexpr int pieces_per_lane = pieces_per_head / lanes_per_key;
constexpr int packs_per_lane = pieces_per_lane * packs_per_piece;
constexpr int keys_per_warp = 32 / lanes_per_key;
// The first component of a lane's piece or pack.
__device__ __forceinline__ int piece_dim(int piece) {
  return ((threadIdx.x & 31) % lanes_per_key + piece * lanes_per_key) * piece_count;
}
__device__ __forceinline__ int pack_dim(int pack) {
  return piece_dim(pack / packs_per_piece) + pack % packs_per_piece * count;
}
// Keys per lane and step; the next step's are under way while those of this one are worked on. Fewer where several heads need registers.
template <int group>
constexpr int unroll_for = larger(1, (group == 1 ? UNROLL : UNROLL / 2) / pieces_per_lane);
// Entries of the block table looked up at a time.
constexpr int chunk_blocks = threads;

// The share of the context that is this split's, [start, end).
struct Share {
  int start;
  int end;
  int num_splits;
};
__device__ __forceinline__ Share share_of(const Decode& args, int context, int split) {
  // Without the divisions, where there is nothing to divide.
  if (args.num_splits == 1 || context <= args.min_split_tokens) return {split == 0 ? 0 : context, context, 1};
  const int used = larger(1, smaller(args.num_splits, ceil_div(context, args.min_split_tokens)));
  const int tokens = ceil_div(ceil_div(context, used), 16) * 16;
  return {smaller(context, split * tokens), smaller(context, (split + 1) * tokens), ceil_div(context, larger(tokens, 1))};
}

// What a running softmax begins with in the place of its highest score: below every score, and the difference of two is a number.
constexpr float lowest = -1e30f;
// By how much a score may exceed the one that sums are scaled by: they are scaled anew when it is exceeded by more, which is seldom.
constexpr float headroom = 8.0f;

// A running softmax over some keys: sum and output scaled by 2^-high.
template <int group>
struct State {
  float high[group];
  float sum[group];
  float output[group][packs_per_lane * count];
};

template <int group>
__device__ __forceinline__ void merge(State<group>& own, int h, float high, float sum, const float* output) {
  const float top = fmaxf(own.high[h], high);
  const float own_factor = exp2f(own.high[h] - top), factor = exp2f(high - top);
  own.high[h] = top;
  own.sum[h] = own.sum[h] * own_factor + sum * factor;
#pragma unroll
  for (int i = 0; i < packs_per_lane * count; i++) own.output[h][i] = own.output[h][i] * own_factor + output[i] * factor;
}

// What one step reads: keys and values of `unroll` keys per lane.
template <int unroll>
struct Step {
  Piece keys[unroll][pieces_per_lane];
  Piece values[unroll][pieces_per_lane];
#if CODES
  float k_scales[unroll];
  float v_scales[unroll];
#endif
};

// Where this lane's pieces of a head's keys lie: of slot 0, and from slot to slot.
struct Keys {
  const Cached* keys[pieces_per_lane];
  const Cached* values[pieces_per_lane];
#if CODES
  const float* k_scales;
  const float* v_scales;
#endif
  int slot_stride;
  // Entries of the table in shared memory, from `first_block` on.
  const int* blocks;
  int first_block;
};

// The token that a lane has of the step from token `first` on.
__device__ __forceinline__ int token_of(int first, int u) {
  return first + (u * num_warps + (threadIdx.x >> 5)) * keys_per_warp + (threadIdx.x & 31) / lanes_per_key;
}

// Starts the reads of the keys from token `first` on; in the place of those after `last`, it.
template <int unroll>
__device__ __forceinline__ void read_step(const Decode& args, const Keys& from, Step<unroll>& step, int first, int last) {
#pragma unroll
  for (int u = 0; u < unroll; u++) {
    const int token = smaller(token_of(first, u), last);
    const int block = args.block_shift >= 0 ? token >> args.block_shift : token / args.block_size;
    const int slot = from.blocks[block - from.first_block] * args.block_size + (token - block * args.block_size);
    const int64_t at = int64_t(slot) * from.slot_stride;
#if CODES
    step.k_scales[u] = load_here(from.k_scales + slot);
    step.v_scales[u] = load_here(from.v_scales + slot);
#endif
#pragma unroll
    for (int p = 0; p < pieces_per_lane; p++) {
      step.keys[u][p] = load_piece(from.keys[p] + at);
      step.values[u][p] = load_piece(from.values[p] + at);
    }
  }
}

// The key and value of the sequence's last row, in shared memory: each lane reads there what it wrote itself.
struct Row {
  Piece key[pieces_per_head];
  Piece value[pieces_per_head];
#if CODES
  float k_scales[32];
  float v_scales[32];
#endif
};

// Puts them into the step from token `first` on, if token `newest` is one of this lane's.
template <int unroll>
__device__ __forceinline__ void insert(Step<unroll>& step, int first, int newest, const Row& row) {
  const int sub_lane = (threadIdx.x & 31) % lanes_per_key;
#pragma unroll
  for (int u = 0; u < unroll; u++) {
    if (token_of(first, u) != newest) continue;
#if CODES
    step.k_scales[u] = row.k_scales[threadIdx.x & 31];
    step.v_scales[u] = row.v_scales[threadIdx.x & 31];
#endif
#pragma unroll
    for (int p = 0; p < pieces_per_lane; p++) {
      step.keys[u][p] = row.key[sub_lane + p * lanes_per_key];
      step.values[u][p] = row.value[sub_lane + p * lanes_per_key];
    }
  }
}

// How one of this lane's packs turns at a position, with its partner half of what turns away.
struct Turn {
  // 0 for a pack that does not turn.
  int partner;
  float cosines[count];
  // With the sign that the partner's share has.
  float sines[count];
};

__device__ __forceinline__ Turn load_turn(const Newest& newest, int position, int p) {
  const int half = newest.rotary_dim / 2;
  const int dim = pack_dim(p);
  Turn turn{};
  if (dim >= newest.rotary_dim) return turn;
  const bool is_first = dim < half;
  const float* pair = newest.cos_sin + int64_t(position) * newest.rotary_dim + (is_first ? dim : dim - half);
  turn.partner = is_first ? half : -half;
  load_floats(pair, false, 0, turn.cosines);
  load_floats(pair, false, half, turn.sines);
#pragma unroll
  for (int i = 0; i < count; i++) turn.sines[i] = is_first ? -turn.sines[i] : turn.sines[i];
  return turn;
}

// One of this lane's packs of a newest row.
struct NewestPacks {
  Pack<T> key;
  Pack<T> partner;
  Pack<T> value;
};

__device__ __forceinline__ NewestPacks load_row(const Decode& args, const Newest& newest, const Turn& turn, int sequence, int kv_head,
                                                int p) {
  const int dim = pack_dim(p);
  if (dim >= args.head_dim) return {};
  const T* key = newest.k + sequence * newest.k_row_stride + kv_head * args.head_dim + dim;
  return {load_pack(key), load_pack(key + turn.partner),
          load_pack(newest.v + sequence * newest.v_row_stride + kv_head * args.head_dim + dim)};
}

// The same bits as rotary.cu's: of the two products, the partner's is rounded before the sum; the sum is rounded to T.
__device__ __forceinline__ Pack<T> turned(const Turn& turn, const Pack<T>& own, const Pack<T>& partner) {
  if (turn.partner == 0) return own;
  float values[count], others[count];
  unpack(own, values);
  unpack(partner, others);
#pragma unroll
  for (int i = 0; i < count; i++) values[i] = fmaf(values[i], turn.cosines[i], others[i] * turn.sines[i]);
  return pack_of(values);
}

// Takes a step's keys and values into the running softmax: those before token `end`, where some of the step from token `first` on are not.
template <bool is_partial, int group, int unroll>
__device__ __forceinline__ void attend(State<group>& state, const Step<unroll>& step, const float (&q)[group][packs_per_lane * count],
                                       int first, int end) {
  float scores[group][unroll];
#pragma unroll
  for (int u = 0; u < unroll; u++) {
#pragma unroll
    for (int h = 0; h < group; h++) scores[h][u] = 0.0f;
#pragma unroll
    for (int p = 0; p < pieces_per_lane; p++) {
      float key[piece_count];
      unpack(step.keys[u][p], key);
#pragma unroll
      for (int h = 0; h < group; h++) {
#pragma unroll
        for (int i = 0; i < piece_count; i++) scores[h][u] += q[h][p * piece_count + i] * key[i];
      }
    }
#pragma unroll
    for (int h = 0; h < group; h++) {
#pragma unroll
      for (int offset = lanes_per_key / 2; offset > 0; offset >>= 1)
        scores[h][u] += __shfl_xor_sync(full_mask, scores[h][u], offset);
#if CODES
      scores[h][u] *= step.k_scales[u];
#endif
      if (is_partial && token_of(first, u) >= end) scores[h][u] = -infinity;
    }
  }
#pragma unroll
  for (int h = 0; h < group; h++) {
    float top = scores[h][0];
#pragma unroll
    for (int u = 1; u < unroll; u++) top = fmaxf(top, scores[h][u]);
    if (__any_sync(full_mask, top > state.high[h] + headroom)) {
      const float high = fmaxf(state.high[h], top), factor = fast_exp2(state.high[h] - high);
      state.high[h] = high;
      state.sum[h] *= factor;
#pragma unroll
      for (int i = 0; i < packs_per_lane * count; i++) state.output[h][i] *= factor;
    }
#pragma unroll
    for (int u = 0; u < unroll; u++) {
      scores[h][u] = fast_exp2(scores[h][u] - state.high[h]);
      state.sum[h] += scores[h][u];
#if CODES
      scores[h][u] *= step.v_scales[u];
#endif
    }
  }
#pragma unroll
  for (int u = 0; u < unroll; u++) {
    // What was read in the place of a value may be no number.
    if (is_partial && token_of(first, u) >= end) continue;
#pragma unroll
    for (int p = 0; p < pieces_per_lane; p++) {
      float value[piece_count];
      unpack(step.values[u][p], value);
#pragma unroll
      for (int h = 0; h < group; h++) {
#pragma unroll
        for (int i = 0; i < piece_count; i++) state.output[h][p * piece_count + i] += scores[h][u] * value[i];
      }
    }
  }
}

// Splits that have stored their part, per sequence and block of heads; zero again at the end of every launch.
__device__ uint32_t arrivals[4096];

// Whether this block is the last of its sequence and heads to store its part, and may read the others'.
__device__ __forceinline__ bool is_last_to_arrive(int num_splits) {
  __shared__ bool is_last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    uint32_t* counter = arrivals + blockIdx.z * gridDim.y + blockIdx.y;
    is_last = atomicAdd(counter, 1u) == uint32_t(num_splits - 1);
    if (is_last) *counter = 0;
    __threadfence();
  }
  __syncthreads();
  return is_last;
}

// Heads of one query row whose splits are to be added up.
struct Parts {
  int sequence;
  int query_row;
  int first_head;
  int num_heads;
  int num_splits;
};

// In the order of the splits, whichever came last: results do not vary.
__device__ __forceinline__ void combine(const Decode& args, const Parts& parts) {
  for (int i = threadIdx.x; i < parts.num_heads * args.head_dim; i += threads) {
    const int head = parts.first_head + i / args.head_dim, dim = i % args.head_dim;
    const int64_t first = (int64_t(parts.sequence) * args.num_heads + head) * args.num_splits;
    // Written by other blocks of this launch: not to be taken from the first-level cache.
    const volatile float* sums = args.partial_sums + first * 2;
    const volatile float* outputs = args.partial_outputs + first * args.head_dim + dim;
    float top = lowest;
    for (int split = 0; split < parts.num_splits; split++) top = fmaxf(top, sums[split * 2]);
    float sum = 0.0f, output = 0.0f;
    for (int split = 0; split < parts.num_splits; split++) {
      const float factor = exp2f(sums[split * 2] - top);
      sum += sums[split * 2 + 1] * factor;
      output += outputs[int64_t(split) * args.head_dim] * factor;
    }
    args.o[parts.query_row * args.o_row_stride + int64_t(head) * args.head_dim + dim] = from_float<T>(output / sum);
  }
}

// The warp that has token `newest` among its keys, of a share whose first chunk of the table begins with `first_block`.
template <int unroll>
__device__ __forceinline__ int owner_of(const Decode& args, const Share& share, int first_block, int newest) {
  constexpr int keys_per_step = num_warps * keys_per_warp * unroll;
  const int chunk_tokens = chunk_blocks * args.block_size, within = newest - first_block * args.block_size;
  const int base = within < chunk_tokens ? share.start : newest - within % chunk_tokens;
  return (newest - base) % keys_per_step / keys_per_warp % num_warps;
}

// Entries of the table of the tokens from `base` on.
__device__ __forceinline__ int first_block_of(const Decode& args, int base) {
  return args.block_shift >= 0 ? base >> args.block_shift : base / args.block_size;
}

template <int group, bool turns>
__device__ __forceinline__ void decode(const Decode& args, const Newest& newest) {
  constexpr int unroll = unroll_for<group>;
  constexpr int keys_per_step = num_warps * keys_per_warp * unroll;
  __shared__ int blocks[chunk_blocks];
  __shared__ float merged[num_warps][HEAD_DIM + 2];
  __shared__ Row newest_row;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int sub_lane = lane % lanes_per_key;
  const int sequence = blockIdx.z, split = blockIdx.x;
  const int32_t* table = args.block_tables + int64_t(sequence) * args.max_blocks;
  allow_next_kernel();
  if (!turns || !newest.are_inputs_settled) wait_for_previous_kernel();
  // Loaded together: one waiting for memory instead of three.
  const int early_block = load_here(table + smaller(int(threadIdx.x), args.max_blocks - 1));
  const int context = load_here(args.context_lengths + sequence);
  int query_row = sequence, position = 0, slot = -1;
  if constexpr (turns) {
    position = load_here(newest.positions + sequence);
    slot = load_here(newest.slots + sequence);
  } else {
    query_row = load_here(args.query_starts + sequence);
    // Rows of longer queries are the tiled kernel's.
    if (load_here(args.query_starts + sequence + 1) - query_row != 1) return;
  }
  const Share share = share_of(args, context, split);
  // The first split's blocks wait for the previous kernel, so that this one does not end before it.
  if (split >= larger(1, share.num_splits)) return;

  const int chunks_of_group = ceil_div(args.heads_per_kv_head, group);
  const int kv_head = chunks_of_group == 1 ? blockIdx.y : blockIdx.y / chunks_of_group;
  const int chunk_of_group = blockIdx.y - kv_head * chunks_of_group;
  const int first_head = kv_head * args.heads_per_kv_head + chunk_of_group * group;
  const int num_group_heads = smaller(group, (kv_head + 1) * args.heads_per_kv_head - first_head);

  Keys from;
  from.blocks = blocks;
  from.slot_stride = args.num_kv_heads * args.head_dim;
#pragma unroll
  for (int p = 0; p < pieces_per_lane; p++) {
    // Beyond the head queries are zero, and any of its pieces does.
    const int dim = kv_head * args.head_dim + (piece_dim(p) < args.head_dim ? piece_dim(p) : 0);
    from.keys[p] = args.k_cache + dim;
    from.values[p] = args.v_cache + dim;
  }
#if CODES
  from.k_scales = args.k_scales + kv_head * args.num_slots;
  from.v_scales = args.v_scales + kv_head * args.num_slots;
#endif

  // The split's first chunk of the table: the one that is read already, if that holds the whole share.
  const bool is_early = share.end <= chunk_blocks * args.block_size;
  int base = share.start;
  from.first_block = is_early ? 0 : first_block_of(args, base);
  int end = smaller(share.end, (from.first_block + chunk_blocks) * args.block_size);
  blocks[threadIdx.x] = is_early ? early_block : table[smaller(from.first_block + int(threadIdx.x), args.max_blocks - 1)];

  // A row that goes nowhere finds its key in the cache.
  const bool has_newest = turns && share.end == context && slot >= 0;
  const int newest_token = has_newest ? context - 1 : -1, stored = has_newest ? context - 1 : share.end;
  // The warp that meets the newest token turns its key.
  const bool is_owner = has_newest && warp == owner_of<unroll>(args, share, from.first_block, newest_token);
  // Of several packs the angles take too many registers to wait in.
  constexpr bool turns_early = turns && packs_per_lane == 1;
  Turn turn{};
  if constexpr (turns_early) turn = load_turn(newest, position, 0);
  __syncthreads();
  if (turns && !newest.are_caches_settled) wait_for_previous_kernel();
  Step<unroll> even, odd;
  // What is not in the cache, or beyond the chunk, is not read, but where there is nothing else: then its own place.
  int last = larger(base, smaller(end, stored) - 1);
  if (base < share.end) read_step(args, from, even, base, last);

  float q[group][packs_per_lane * count];
  if constexpr (turns) wait_for_previous_kernel();
  // What the warp of the newest token waits for is under way before the queries are.
  NewestPacks row{};
  if constexpr (turns_early) {
    if (is_owner) row = load_row(args, newest, turn, sequence, kv_head, 0);
  }
#pragma unroll
  for (int p = 0; p < packs_per_lane; p++) {
    const int dim = pack_dim(p);
    if constexpr (turns && !turns_early) turn = load_turn(newest, position, p);
    Pack<T> own[group], partners[group];
#pragma unroll
    for (int h = 0; h < group; h++) {
      own[h] = partners[h] = Pack<T>{};
      if (dim >= args.head_dim || h >= num_group_heads) continue;
      const T* at = args.q + query_row * args.q_row_stride + int64_t(first_head + h) * args.head_dim + dim;
      own[h] = load_pack(at);
      if constexpr (turns) partners[h] = load_pack(at + turn.partner);
    }
#pragma unroll
    for (int h = 0; h < group; h++) {
      float values[count];
      unpack(turns ? turned(turn, own[h], partners[h]) : own[h], values);
#pragma unroll
      for (int i = 0; i < count; i++) q[h][p * count + i] = values[i] * args.scale_log2;
    }
  }
  if (is_owner) {
    // Of several blocks of its head, one stores it.
    const bool stores = lane < lanes_per_key && chunk_of_group == 0;
    const int64_t to = int64_t(slot) * from.slot_stride + kv_head * args.head_dim;
#if CODES
    float key[packs_per_lane * count], value[packs_per_lane * count];
#pragma unroll
    for (int p = 0; p < packs_per_lane; p++) {
      if constexpr (!turns_early) {
        turn = load_turn(newest, position, p);
        row = load_row(args, newest, turn, sequence, kv_head, p);
      }
      float own[count];
      unpack(turned(turn, row.key, row.partner), own);
#pragma unroll
      for (int i = 0; i < count; i++) key[p * count + i] = own[i];
      unpack(row.value, own);
#pragma unroll
      for (int i = 0; i < count; i++) value[p * count + i] = own[i];
    }
    const RowScale k_scale = row_scale(peak_of_lanes<lanes_per_key>(larger_magnitude(0.0f, key)));
    const RowScale v_scale = row_scale(peak_of_lanes<lanes_per_key>(larger_magnitude(0.0f, value)));
    newest_row.k_scales[lane] = k_scale.scale;
    newest_row.v_scales[lane] = v_scale.scale;
    if (stores && lane == 0) {
      newest.k_scales[kv_head * args.num_slots + slot] = k_scale.scale;
      newest.v_scales[kv_head * args.num_slots + slot] = v_scale.scale;
    }
#pragma unroll
    for (int p = 0; p < pieces_per_lane; p++) {
      const Piece key_piece = codes_of<piece_count>(key + p * piece_count, k_scale.inverse);
      const Piece value_piece = codes_of<piece_count>(value + p * piece_count, v_scale.inverse);
      newest_row.key[sub_lane + p * lanes_per_key] = key_piece;
      newest_row.value[sub_lane + p * lanes_per_key] = value_piece;
      if (!stores || piece_dim(p) >= args.head_dim) continue;
      store_codes_streaming(newest.k_cache + to + piece_dim(p), key_piece);
      store_codes_streaming(newest.v_cache + to + piece_dim(p), value_piece);
    }
#else
#pragma unroll 1
    for (int p = 0; p < packs_per_lane; p++) {
      if constexpr (!turns_early) {
        turn = load_turn(newest, position, p);
        row = load_row(args, newest, turn, sequence, kv_head, p);
      }
      row.key = turned(turn, row.key, row.partner);
      newest_row.key[sub_lane + p * lanes_per_key] = row.key;
      newest_row.value[sub_lane + p * lanes_per_key] = row.value;
      if (!stores || pack_dim(p) >= args.head_dim) continue;
      store_pack_streaming(newest.k_cache + to + pack_dim(p), row.key);
      store_pack_streaming(newest.v_cache + to + pack_dim(p), row.value);
    }
#endif
  }

  State<group> state;
#pragma unroll
  for (int h = 0; h < group; h++) {
    state.high[h] = lowest;
    state.sum[h] = 0.0f;
#pragma unroll
    for (int i = 0; i < packs_per_lane * count; i++) state.output[h][i] = 0.0f;
  }
  while (base < share.end) {
    int step = base;
    // Whole steps, after which another one follows; the next step's reads are under way.
    for (; step + 2 * keys_per_step < end; step += 2 * keys_per_step) {
      read_step(args, from, odd, step + keys_per_step, last);
      attend<false>(state, even, q, step, end);
      read_step(args, from, even, step + 2 * keys_per_step, last);
      attend<false>(state, odd, q, step + keys_per_step, end);
    }
    const bool has_odd = step + keys_per_step < end;
    if (has_odd) read_step(args, from, odd, step + keys_per_step, last);
    if constexpr (turns) insert(even, step, newest_token, newest_row);
    attend<true>(state, even, q, step, end);
    if (has_odd) {
      if constexpr (turns) insert(odd, step + keys_per_step, newest_token, newest_row);
      attend<true>(state, odd, q, step + keys_per_step, end);
    }
    base = end;
    if (base >= share.end) break;
    from.first_block = first_block_of(args, base);
    end = smaller(share.end, (from.first_block + chunk_blocks) * args.block_size);
    last = larger(base, smaller(end, stored) - 1);
    __syncthreads();
    blocks[threadIdx.x] = table[smaller(from.first_block + int(threadIdx.x), args.max_blocks - 1)];
    __syncthreads();
    read_step(args, from, even, base, last);
  }

  const bool is_final = args.num_splits == 1 || share.num_splits <= 1;
#pragma unroll
  for (int h = 0; h < group; h++) {
    // Lanes of the same components in the warp, then the warps.
#pragma unroll
    for (int offset = lanes_per_key; offset < 32; offset <<= 1) {
      float other[packs_per_lane * count];
      const float high = __shfl_xor_sync(full_mask, state.high[h], offset);
      const float sum = __shfl_xor_sync(full_mask, state.sum[h], offset);
#pragma unroll
      for (int i = 0; i < packs_per_lane * count; i++) other[i] = __shfl_xor_sync(full_mask, state.output[h][i], offset);
      merge(state, h, high, sum, other);
    }
    if (h > 0) __syncthreads();
    if (lane < lanes_per_key) {
#pragma unroll
      for (int p = 0; p < packs_per_lane; p++) {
#pragma unroll
        for (int i = 0; i < count; i++) merged[warp][pack_dim(p) + i] = state.output[h][p * count + i];
      }
      if (lane == 0) {
        merged[warp][HEAD_DIM] = state.high[h];
        merged[warp][HEAD_DIM + 1] = state.sum[h];
      }
    }
    __syncthreads();
    if (h >= num_group_heads) continue;
    float top = lowest, sum = 0.0f, factors[num_warps];
#pragma unroll
    for (int w = 0; w < num_warps; w++) top = fmaxf(top, merged[w][HEAD_DIM]);
#pragma unroll
    for (int w = 0; w < num_warps; w++) {
      factors[w] = exp2f(merged[w][HEAD_DIM] - top);
      sum += merged[w][HEAD_DIM + 1] * factors[w];
    }
    const int head = first_head + h;
    const int64_t partial = (int64_t(sequence) * args.num_heads + head) * args.num_splits + split;
    for (int dim = threadIdx.x; dim < args.head_dim; dim += threads) {
      float output = 0.0f;
#pragma unroll
      for (int w = 0; w < num_warps; w++) output += merged[w][dim] * factors[w];
      if (is_final) {
        args.o[query_row * args.o_row_stride + int64_t(head) * args.head_dim + dim] =
            from_float<T>(sum > 0.0f || sum != sum ? output / sum : 0.0f);
      } else {
        args.partial_outputs[partial * args.head_dim + dim] = output;
      }
    }
    if (!is_final && threadIdx.x == 0) {
      args.partial_sums[partial * 2] = top;
      args.partial_sums[partial * 2 + 1] = sum;
    }
  }
  if (!is_final && is_last_to_arrive(share.num_splits))
    combine(args, {sequence, query_row, first_head, num_group_heads, share.num_splits});
}

// Grid (splits, key/value heads * chunks of their group, sequences). rotary_attention_decode_* need whole packs of half of rotary_dim, too, and
// rows of angles that 16-byte accesses reach.
#ifdef MIN_BLOCKS_1
extern "C" __global__ void __launch_bounds__(bound, MIN_BLOCKS_1) attention_decode_1(Decode args) {
  decode<1, false>(args, {});
}
extern "C" __global__ void __launch_bounds__(bound, MIN_BLOCKS_1) rotary_attention_decode_1(Decode args, Newest newest) {
  decode<1, true>(args, newest);
}
#endif
#ifdef MIN_BLOCKS_2
extern "C" __global__ void __launch_bounds__(bound, MIN_BLOCKS_2) attention_decode_2(Decode args) {
  decode<2, false>(args, {});
}
extern "C" __global__ void __launch_bounds__(bound, MIN_BLOCKS_2) rotary_attention_decode_2(Decode args, Newest newest) {
  decode<2, true>(args, newest);
}
#endif
#ifdef MIN_BLOCKS_4
extern "C" __global__ void __launch_bounds__(threads, MIN_BLOCKS_4) attention_decode_4(Decode args) {
  decode<4, false>(args, {});
}
extern "C" __global__ void __launch_bounds__(threads, MIN_BLOCKS_4) rotary_attention_decode_4(Decode args, Newest newest) {
  decode<4, true>(args, newest);
}
#endif
