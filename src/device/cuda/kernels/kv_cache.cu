// Rows of keys and values into their slots of a paged cache. A negative slot skips its row. T is the type of all four tensors.

constexpr int threads = 256;
constexpr int count = Pack<T>::count;

struct CacheWrite {
  const T* k;
  const T* v;
  const int32_t* slots;
  T* k_cache;
  T* v_cache;
  int64_t num_rows;
  int64_t k_row_stride;
  int64_t v_row_stride;
  // G * D
  int width;
};

// One thread per pack, or per element where packs do not fit, of a row's keys and values.
extern "C" __global__ void __launch_bounds__(threads) kv_cache_write(CacheWrite args) {
  begin_after_previous();
  const bool uses_packs = args.width % count == 0 && args.k_row_stride % count == 0 && args.v_row_stride % count == 0 &&
                          is_aligned_16(args.k) && is_aligned_16(args.v) && is_aligned_16(args.k_cache) &&
                          is_aligned_16(args.v_cache);
  const int per_row = uses_packs ? args.width / count : args.width;
  const int64_t total = args.num_rows * per_row;
  for (int64_t i = int64_t(blockIdx.x) * threads + threadIdx.x; i < total; i += int64_t(gridDim.x) * threads) {
    const int64_t row = i / per_row;
    const int within = static_cast<int>(i - row * per_row);
    const int slot = args.slots[row];
    if (slot < 0) continue;
    if (uses_packs) {
      const int at = within * count;
      const Pack<T> k = load_pack(args.k + row * args.k_row_stride + at), v = load_pack(args.v + row * args.v_row_stride + at);
      store_pack(args.k_cache + int64_t(slot) * args.width + at, k);
      store_pack(args.v_cache + int64_t(slot) * args.width + at, v);
    } else {
      args.k_cache[int64_t(slot) * args.width + within] = args.k[row * args.k_row_stride + within];
      args.v_cache[int64_t(slot) * args.width + within] = args.v[row * args.v_row_stride + within];
    }
  }
}
