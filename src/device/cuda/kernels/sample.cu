// Sampling without sorting. A first launch reads every logit once, with many blocks per row: maximum, log-sum-exp, and the maximum of
// each small subset of the row. A second launch, one block per row, draws. The k-th largest subset maximum is a lower bound for the
// k-th largest logit, and only subsets that reach it can hold larger ones, so a few kilobytes are read again instead of a
// megabyte. Thresholds for top-k and top-p are found by radix selection over the bits of the logits; where the candidates are too
// many, the same selection runs over the whole row. Probability mass is counted in whole units of 2^-34 of the highest token's,
// so that sums are exact and do not depend on the order of threads.
#include "philox.cuh"

constexpr int scan_threads = 256;
// Groups of four logits that a thread has under way.
constexpr int scan_unroll = 4;
constexpr int draw_threads = 1024;
constexpr int max_candidates = 4096;
// Up to so many candidates each thread takes one and compares it with all others.
constexpr int few_candidates = draw_threads;
// Where top-k does not say how many logits are needed, this many subsets are looked at.
constexpr int usual_subsets = 512;
constexpr int most_subsets = 1024;
constexpr int radix_bins = 256;
constexpr float mass_unit = 17179869184.0f;
constexpr int mass_half_bits = 17;

struct Sample {
  const float* logits;
  const float* temperature;
  const int32_t* top_k;
  const float* top_p;
  const float* min_p;
  const int64_t* seeds;
  const int64_t* counters;
  int32_t* tokens;
  float* logprobs;
  // Per row: num_splits summaries, then num_splits * scan_threads subset maxima.
  struct Summary* summaries;
  float* subset_maxima;
  int vocab_size;
  int num_splits;
  // Logits per split, a multiple of 4.
  int split_size;
};

// Of a stretch of a row: its highest logit and where it first stands, sums of exp(x - high) and exp((x - high) / temperature).
struct Summary {
  float high;
  int index;
  float sum;
  float tempered_sum;
};

__device__ __forceinline__ float weight_of(float x, float high, float over_temperature) {
  return high == -infinity ? 0.0f : expf((x - high) * over_temperature);
}

__device__ __forceinline__ Summary merge(Summary a, Summary b, float over_temperature) {
  const bool takes_b = b.high > a.high || (b.high == a.high && b.index < a.index);
  const float high = takes_b ? b.high : a.high;
  return {high, takes_b ? b.index : a.index, a.sum * weight_of(a.high, high, 1.0f) + b.sum * weight_of(b.high, high, 1.0f),
          a.tempered_sum * weight_of(a.high, high, over_temperature) +
              b.tempered_sum * weight_of(b.high, high, over_temperature)};
}

__device__ __forceinline__ Summary warp_merge(Summary own, float over_temperature) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1)
    own = merge(own,
                {__shfl_xor_sync(full_mask, own.high, offset), __shfl_xor_sync(full_mask, own.index, offset),
                 __shfl_xor_sync(full_mask, own.sum, offset), __shfl_xor_sync(full_mask, own.tempered_sum, offset)},
                over_temperature);
  return own;
}

__device__ __forceinline__ float inverse_temperature(float temperature) { return temperature > 0.0f ? 1.0f / temperature : 1.0f; }

// Grid (splits, rows). Subset `thread` of a split holds the groups of four logits whose number is `thread` modulo 256.
extern "C" __global__ void __launch_bounds__(scan_threads) sample_scan(Sample args) {
  begin_after_previous();
  __shared__ Summary scratch[scan_threads / 32];
  const int row = blockIdx.y, split = blockIdx.x;
  const float* logits = args.logits + int64_t(row) * args.vocab_size;
  const float over_temperature = inverse_temperature(args.temperature[row]);
  const int start = split * args.split_size, end = smaller(args.vocab_size, start + args.split_size);
  const bool is_aligned = is_aligned_16(logits);
  Summary own = {-infinity, start, 0.0f, 0.0f};
  bool has_nan = false;
  for (int base = start + threadIdx.x * 4; base < end; base += scan_threads * 4 * scan_unroll) {
    float values[scan_unroll][4];
#pragma unroll
    for (int u = 0; u < scan_unroll; u++) {
      const int first = base + u * scan_threads * 4;
      if (is_aligned && first + 4 <= end) {
        unpack(load_pack(logits + first), values[u]);
      } else {
#pragma unroll
        for (int i = 0; i < 4; i++) values[u][i] = first + i < end ? logits[first + i] : -infinity;
      }
    }
    const float previous = own.high;
#pragma unroll
    for (int u = 0; u < scan_unroll; u++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        has_nan |= values[u][i] != values[u][i];
        if (values[u][i] > own.high) own.high = values[u][i], own.index = base + u * scan_threads * 4 + i;
      }
    }
    if (own.high > previous) {
      own.sum *= weight_of(previous, own.high, 1.0f);
      own.tempered_sum *= weight_of(previous, own.high, over_temperature);
    }
#pragma unroll
    for (int u = 0; u < scan_unroll; u++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        own.sum += weight_of(values[u][i], own.high, 1.0f);
        own.tempered_sum += weight_of(values[u][i], own.high, over_temperature);
      }
    }
  }
  const int64_t block = int64_t(row) * args.num_splits + split;
  args.subset_maxima[block * scan_threads + threadIdx.x] = own.high;
  if (has_nan) own.sum = not_a_number;
  own = warp_merge(own, over_temperature);
  if ((threadIdx.x & 31) == 0) scratch[threadIdx.x >> 5] = own;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  own = threadIdx.x < scan_threads / 32 ? scratch[threadIdx.x] : Summary{-infinity, 0x7fffffff, 0.0f, 0.0f};
  own = warp_merge(own, over_temperature);
  if (threadIdx.x == 0) args.summaries[block] = own;
}

// ---- keys: unsigned numbers in the order of the logits ----

__device__ __forceinline__ uint32_t key_of(float x) {
  // Adding zero makes the two zeros equal; NaN comes last.
  const uint32_t bits = __float_as_uint(x + 0.0f);
  return x != x ? 0u : (bits & 0x80000000u) ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float value_of(uint32_t key) {
  return key == 0u ? -infinity : __uint_as_float((key & 0x80000000u) ? key & 0x7fffffffu : ~key);
}

struct Shared {
  // Lane-private bins, so that the threads of a warp never meet: [bin][lane].
  uint32_t low[radix_bins * 32];
  // High halves of masses, or the subset maxima.
  uint32_t high[radix_bins * 32];
  uint32_t keys[max_candidates];
  int indices[max_candidates];
  uint64_t bins[radix_bins];
  uint64_t scratch[32];
  uint64_t remaining;
  int bin;
  int num_candidates;
  Summary summary;
};

// Sources of (key, index): the candidates, or the whole row.
struct Candidates {
  const Shared& shared;
  template <class Body>
  __device__ __forceinline__ void for_each(Body body) const {
    for (int i = threadIdx.x; i < shared.num_candidates; i += draw_threads) body(shared.keys[i], shared.indices[i]);
  }
};
struct Row {
  const float* logits;
  int vocab_size;
  template <class Body>
  __device__ __forceinline__ void for_each(Body body) const {
    if (is_aligned_16(logits) && vocab_size % 4 == 0) {
#pragma unroll 4
      for (int i = threadIdx.x * 4; i < vocab_size; i += draw_threads * 4) {
        float values[4];
        unpack(load_pack(logits + i), values);
#pragma unroll
        for (int j = 0; j < 4; j++) body(key_of(values[j]), i + j);
      }
    } else {
      for (int i = threadIdx.x; i < vocab_size; i += draw_threads) body(key_of(logits[i]), i);
    }
  }
};

struct Maxima {
  const uint32_t* keys;
  int number;
  template <class Body>
  __device__ __forceinline__ void for_each(Body body) const {
    for (int i = threadIdx.x; i < number; i += draw_threads) body(keys[i], i);
  }
};

// The largest key whose elements and those of larger keys together have at least `target`; elements have `key_of(…)` and
// `amount_of(…)` (0 skips; at most 1 where `counts`). Begins at the 8 bits above `shift`. Zero where all together have less.
template <bool counts, class Source, class KeyOf, class AmountOf>
__device__ uint32_t select(Shared& shared, const Source& source, uint64_t target, int shift, KeyOf key_of, AmountOf amount_of) {
  const int lane = threadIdx.x & 31;
  uint32_t prefix = 0;
  for (; shift >= 0; shift -= 8) {
    for (int i = threadIdx.x; i < radix_bins * 32; i += draw_threads) {
      shared.low[i] = 0;
      if constexpr (!counts) shared.high[i] = 0;
    }
    __syncthreads();
    source.for_each([&](uint32_t key, int index) {
      const uint32_t sort_key = key_of(key, index);
      if ((static_cast<uint64_t>(sort_key ^ prefix) >> (shift + 8)) != 0) return;
      const uint64_t amount = amount_of(key, index);
      if (amount == 0) return;
      const int at = ((sort_key >> shift) & 255u) * 32 + lane;
      if constexpr (counts) {
        atomicAdd(shared.low + at, 1u);
      } else {
        atomicAdd(shared.low + at, static_cast<uint32_t>(amount & ((1u << mass_half_bits) - 1)));
        if ((amount >> mass_half_bits) != 0) atomicAdd(shared.high + at, static_cast<uint32_t>(amount >> mass_half_bits));
      }
    });
    __syncthreads();
    if (threadIdx.x < radix_bins) {
      uint64_t total = 0;
      for (int i = 0; i < 32; i++) {
        // Every thread at another bank.
        const int at = threadIdx.x * 32 + ((i + threadIdx.x) & 31);
        total += shared.low[at];
        if constexpr (!counts) total += static_cast<uint64_t>(shared.high[at]) << mass_half_bits;
      }
      shared.bins[threadIdx.x] = total;
    }
    __syncthreads();
    if (threadIdx.x < 32) {
      // Each lane takes eight bins, from the highest down.
      const int first_bin = radix_bins - 1 - 8 * lane;
      uint64_t own = 0;
      for (int i = 0; i < 8; i++) own += shared.bins[first_bin - i];
      uint64_t before = own;
      for (int offset = 1; offset < 32; offset <<= 1) {
        const uint64_t other = __shfl_up_sync(full_mask, before, offset);
        if (lane >= offset) before += other;
      }
      const bool is_short = __shfl_sync(full_mask, before, 31) < target;
      before -= own;
      if (lane == 0 && is_short) shared.bin = -1;
      if (!is_short && before < target && before + own >= target) {
        int bin = first_bin;
        while (before + shared.bins[bin] < target) before += shared.bins[bin--];
        shared.bin = bin;
        shared.remaining = target - before;
      }
    }
    __syncthreads();
    if (shared.bin < 0) return 0;
    prefix |= static_cast<uint32_t>(shared.bin) << shift;
    target = shared.remaining;
    __syncthreads();
  }
  return prefix;
}

// What is kept, and how likely it is.
struct Cut {
  float high;
  float over_temperature;
  float min_p;
  uint32_t high_key;
  uint32_t threshold;

  __device__ __forceinline__ float weight(uint32_t key) const { return weight_of(value_of(key), high, over_temperature); }
  __device__ __forceinline__ uint64_t mass(uint32_t key) const {
    const float weight_in_units = weight(key) * mass_unit;
    return weight_in_units > 0.0f ? __float2ull_rn(weight_in_units) : 0ull;
  }
  __device__ __forceinline__ uint64_t kept_mass(uint32_t key) const {
    if (key < threshold) return 0;
    if (min_p > 0.0f && key != high_key && !(weight(key) >= min_p)) return 0;
    return mass(key);
  }
};

template <class Source>
__device__ uint64_t total_mass(Shared& shared, const Source& source, const Cut& cut) {
  uint64_t total = 0;
  source.for_each([&](uint32_t key, int) { total += cut.kept_mass(key); });
  return block_sum(total, shared.scratch);
}

// The whole units that must be exceeded: floor(u total) for u = bits * 2^-24.
__device__ __forceinline__ uint64_t draw_target(uint64_t total, uint32_t bits) {
  return (__umul64hi(total, bits) << 40) | (total * bits >> 24);
}

// The first token of the row, in token order, up to which more than u times the kept mass lies. Narrows the row down to a stretch by
// the sums of 32 stretches, one warp each, twice; then one warp walks.
__device__ int draw_from_row(Shared& shared, const Row& row, const Cut& cut, uint32_t bits) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  int start = 0, end = row.vocab_size;
  uint64_t target = 0;
  for (int round = 0; round < 2; round++) {
    const int stretch = ceil_div(ceil_div(end - start, 32), 32) * 32;
    const int own_end = smaller(end, start + (warp + 1) * stretch);
    uint64_t own = 0;
#pragma unroll 4
    for (int i = start + warp * stretch + lane; i < own_end; i += 32) own += cut.kept_mass(key_of(row.logits[i]));
    own = warp_sum(own);
    if (lane == 0) shared.scratch[warp] = own;
    __syncthreads();
    uint64_t total = 0;
    for (int i = 0; i < 32; i++) total += shared.scratch[i];
    if (round == 0) target = draw_target(total, bits);
    int chosen = 0;
    while (chosen < 31 && target >= shared.scratch[chosen]) target -= shared.scratch[chosen++];
    __syncthreads();
    start += chosen * stretch;
    end = smaller(end, start + stretch);
  }
  if (warp == 0) {
    int drawn = -1;
    uint64_t before = 0;
    for (int first = start; first < end && drawn < 0; first += 32) {
      const int i = first + lane;
      uint64_t up_to = i < end ? cut.kept_mass(key_of(row.logits[i])) : 0;
      for (int offset = 1; offset < 32; offset <<= 1) {
        const uint64_t other = __shfl_up_sync(full_mask, up_to, offset);
        if (lane >= offset) up_to += other;
      }
      const unsigned exceeding = __ballot_sync(full_mask, before + up_to > target);
      if (exceeding != 0) drawn = first + __ffs(exceeding) - 1;
      before += __shfl_sync(full_mask, up_to, 31);
    }
    if (lane == 0) shared.bin = drawn < 0 ? shared.summary.index : drawn;
  }
  __syncthreads();
  return shared.bin;
}

// Fills the candidates with every logit of the row, or with every one that reaches the `needed`-th largest subset maximum. False where
// they are too many.
__device__ bool gather_candidates(const Sample& args, Shared& shared, const Row& row, int needed) {
  if (threadIdx.x == 0) shared.num_candidates = 0;
  __syncthreads();
  const auto add = [&](uint32_t key, int index) {
    const int at = atomicAdd(&shared.num_candidates, 1);
    if (at >= max_candidates) return;
    shared.keys[at] = key;
    shared.indices[at] = index;
  };
  if (row.vocab_size <= max_candidates) {
    row.for_each(add);
    __syncthreads();
    return true;
  }
  const int num_subsets = args.num_splits * scan_threads;
  if (needed == 0 || needed > most_subsets || num_subsets < needed) return false;
  const float* maxima = args.subset_maxima + int64_t(blockIdx.x) * num_subsets;
  for (int i = threadIdx.x; i < num_subsets; i += draw_threads) shared.high[i] = key_of(maxima[i]);
  __syncthreads();
  // The upper half of the key is close enough for a lower bound.
  const uint32_t bound = select<true>(
                             shared, Maxima{shared.high, num_subsets}, needed, 8,
                             [](uint32_t key, int) { return key >> 16; }, [](uint32_t, int) { return 1ull; })
                         << 16;
  for (int subset = threadIdx.x; subset < num_subsets; subset += draw_threads) {
    if (shared.high[subset] < bound) continue;
    const int split = subset / scan_threads, start = split * args.split_size;
    const int end = smaller(row.vocab_size, start + args.split_size);
    for (int first = start + subset % scan_threads * 4; first < end; first += scan_threads * 4) {
#pragma unroll
      for (int i = first; i < first + 4; i++) {
        const uint32_t key = i < end ? key_of(row.logits[i]) : 0;
        if (i < end && key >= bound) add(key, i);
      }
    }
  }
  __syncthreads();
  return shared.num_candidates <= max_candidates;
}

struct Request {
  int top_k;
  float top_p;
};

// Raises the cut's threshold to what top-k and top-p keep of the source; `all_mass` is that of the whole row, for sources that are not
// the whole row. False where the source does not hold all that is kept.
template <class Source>
__device__ bool find_threshold(Shared& shared, const Source& source, const Request& request, Cut& cut, uint64_t all_mass) {
  const auto same = [](uint32_t key, int) { return key; };
  const float min_p = cut.min_p;
  cut.min_p = 0.0f;
  if (request.top_k > 0)
    cut.threshold = select<true>(shared, source, request.top_k, 24, same, [](uint32_t, int) { return 1ull; });
  if (request.top_p > 0.0f) {
    const uint64_t total = request.top_k > 0 || all_mass == 0 ? total_mass(shared, source, cut) : all_mass;
    const double wanted = ceil(static_cast<double>(request.top_p) * static_cast<double>(total));
    const uint64_t target = larger<uint64_t>(1, static_cast<uint64_t>(wanted));
    const uint32_t threshold =
        select<false>(shared, source, target, 24, same, [&](uint32_t key, int) { return cut.kept_mass(key); });
    cut.threshold = larger(cut.threshold, threshold);
    cut.min_p = min_p;
    return threshold != 0 || all_mass == 0;
  }
  cut.min_p = min_p;
  return true;
}

// The draw from at most few_candidates candidates: a candidate is kept or not by how many, and how much mass, lie above it, and drawn by
// how much kept mass stands before it. Gives -1 where the candidates do not hold all that is kept.
__device__ int draw_from_few(Shared& shared, const Request& request, const Cut& cut, uint64_t all_mass, uint32_t bits) {
  const int number = shared.num_candidates;
  const bool is_candidate = static_cast<int>(threadIdx.x) < number;
  const uint32_t key = is_candidate ? shared.keys[threadIdx.x] : 0;
  const int index = is_candidate ? shared.indices[threadIdx.x] : 0x7fffffff;
  // Masses have at most 35 bits; a thousand of them fit in 64.
  uint64_t* masses = reinterpret_cast<uint64_t*>(shared.low);
  masses[threadIdx.x] = is_candidate ? cut.mass(key) : 0;
  if (threadIdx.x == 0) shared.bin = -1;
  __syncthreads();
  int num_above = 0;
  uint64_t mass_above = 0;
#pragma unroll 4
  for (int i = 0; i < number; i++) {
    const bool is_above = shared.keys[i] > key;
    num_above += is_above;
    mass_above += is_above ? masses[i] : 0;
  }
  bool is_kept = is_candidate && (request.top_k == 0 || num_above < request.top_k);
  if (request.top_p > 0.0f) {
    const uint64_t held = block_sum(is_kept ? masses[threadIdx.x] : 0ull, shared.scratch);
    const uint64_t total = request.top_k > 0 || all_mass == 0 ? held : all_mass;
    const double wanted = ceil(static_cast<double>(request.top_p) * static_cast<double>(total));
    const uint64_t target = larger<uint64_t>(1, static_cast<uint64_t>(wanted));
    if (held < target) return -1;
    is_kept &= mass_above < target;
  }
  is_kept &= !(cut.min_p > 0.0f) || key == cut.high_key || cut.weight(key) >= cut.min_p;
  const uint64_t own = is_kept ? masses[threadIdx.x] : 0;
  const uint64_t total = block_sum(own, shared.scratch);
  masses[threadIdx.x] = own;
  __syncthreads();
  const uint64_t target = draw_target(total, bits);
  uint64_t before = 0;
#pragma unroll 4
  for (int i = 0; i < number; i++) before += shared.indices[i] < index ? masses[i] : 0;
  if (before <= target && target < before + own) shared.bin = index;
  __syncthreads();
  return shared.bin;
}

// Grid (rows); dynamic shared memory holds a Shared.
extern "C" __global__ void __launch_bounds__(draw_threads) sample_draw(Sample args) {
  begin_after_previous();
  Shared& shared = *reinterpret_cast<Shared*>(dynamic_shared);
  const int64_t at = blockIdx.x;
  const Row row = {args.logits + at * args.vocab_size, args.vocab_size};
  const float temperature = args.temperature[at];
  const float over_temperature = inverse_temperature(temperature);
  if (threadIdx.x < 32) {
    Summary summary = {-infinity, 0x7fffffff, 0.0f, 0.0f};
    for (int i = threadIdx.x; i < args.num_splits; i += 32)
      summary = merge(summary, args.summaries[at * args.num_splits + i], over_temperature);
    summary = warp_merge(summary, over_temperature);
    if (threadIdx.x == 0) shared.summary = summary;
  }
  __syncthreads();
  const Summary summary = shared.summary;
  int token = summary.index;
  const int top_k = args.top_k[at];
  if (temperature != 0.0f && top_k != 1 && summary.high != -infinity) {
    const float top_p = args.top_p[at];
    const Request request = {top_k > 0 && top_k < args.vocab_size ? top_k : 0, top_p > 0.0f && top_p < 1.0f ? top_p : 0.0f};
    Cut cut = {summary.high, over_temperature, args.min_p[at], key_of(summary.high), 0u};
    const bool cuts = request.top_p > 0.0f || cut.min_p > 0.0f;
    const uint32_t bits = philox(args.seeds[at], args.counters[at]).x >> 8;
    bool is_found = gather_candidates(args, shared, row, request.top_k > 0 ? request.top_k : cuts ? usual_subsets : 0);
    const Candidates candidates = {shared};
    const bool holds_row = args.vocab_size <= max_candidates;
    const uint64_t all_mass = holds_row ? 0 : larger(1ull, __float2ull_rn(summary.tempered_sum * mass_unit));
    // With minP alone the candidates suffice if even the lowest of them falls below it.
    if (is_found && !holds_row && request.top_k == 0 && request.top_p == 0.0f) {
      uint64_t falls = 0;
      candidates.for_each([&](uint32_t key, int) { falls += cut.weight(key) < cut.min_p ? 1 : 0; });
      is_found = block_sum(falls, shared.scratch) > 0;
    }
    int drawn = -1;
    if (is_found && shared.num_candidates <= few_candidates) {
      drawn = draw_from_few(shared, request, cut, all_mass, bits);
    } else if (is_found && find_threshold(shared, candidates, request, cut, all_mass)) {
      const uint64_t target = draw_target(total_mass(shared, candidates, cut), bits) + 1;
      const uint32_t selected = select<false>(
          shared, candidates, target, 24, [](uint32_t, int index) { return ~static_cast<uint32_t>(index); },
          [&](uint32_t key, int) { return cut.kept_mass(key); });
      if (selected != 0) drawn = static_cast<int>(~selected);
    }
    if (drawn < 0) {
      cut.threshold = 0;
      find_threshold(shared, row, request, cut, 0);
      drawn = draw_from_row(shared, row, cut, bits);
    }
    token = drawn;
  }
  if (threadIdx.x != 0) return;
  if (token < 0 || token >= args.vocab_size) token = 0;
  args.tokens[at] = token;
  args.logprobs[at] = row.logits[token] - (summary.high + logf(summary.sum));
}
