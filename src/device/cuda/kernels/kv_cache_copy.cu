// Slots of a paged cache that get what others hold, whatever the elements are. No source is also a target.

constexpr int threads = 256;

struct CacheCopy {
  const int32_t* sources;
  const int32_t* slots;
  uint8_t* k_cache;
  uint8_t* v_cache;
  // (G, num_slots), or null.
  float* k_scales;
  float* v_scales;
  int64_t num_rows;
  int64_t num_slots;
  // Bytes of a slot's keys, and of its values.
  int64_t slot_bytes;
  int num_kv_heads;
};

template <class Word>
__device__ __forceinline__ void copy_words(uint8_t* cache, int64_t slot, int64_t source, int64_t slot_bytes) {
  const Word* from = reinterpret_cast<const Word*>(cache + source * slot_bytes);
  Word* to = reinterpret_cast<Word*>(cache + slot * slot_bytes);
  for (int64_t i = threadIdx.x; i < slot_bytes / int64_t(sizeof(Word)); i += threads) to[i] = from[i];
}

// Grid (rows, 2): keys, values.
extern "C" __global__ void __launch_bounds__(threads) kv_cache_copy(CacheCopy args) {
  begin_after_previous();
  const int64_t source = args.sources[blockIdx.x], slot = args.slots[blockIdx.x];
  uint8_t* const cache = blockIdx.y == 0 ? args.k_cache : args.v_cache;
  float* const scales = blockIdx.y == 0 ? args.k_scales : args.v_scales;
  if (args.slot_bytes % 16 == 0 && is_aligned_16(cache)) {
    copy_words<uint4>(cache, slot, source, args.slot_bytes);
  } else {
    copy_words<uint8_t>(cache, slot, source, args.slot_bytes);
  }
  if (scales == nullptr) return;
  for (int group = threadIdx.x; group < args.num_kv_heads; group += threads)
    scales[group * args.num_slots + slot] = scales[group * args.num_slots + source];
}
