/*
 * Keys and values of a paged cache: floats, or E4M3 codes with a scale for each slot and head, as quantiseRows makes them of a head's vector.
 */
#pragma once

#include "float8_rows.h"

namespace nt {

inline NT_INLINE vec load_vec(const e4m3* p, all_lanes lanes = {}) {
  return e4m3_values(load_codes(reinterpret_cast<const uint8_t*>(p), lanes));
}
inline NT_INLINE vec load_vec(const e4m3* p, some_lanes lanes) {
  return e4m3_values(load_codes(reinterpret_cast<const uint8_t*>(p), lanes));
}

/* One half of a cache, keys or values, as codes: (num_slots, G, D), scales (G, num_slots). */
struct CodeSlots {
  uint8_t* codes;
  float* scales;
  int64_t num_slots, num_kv_heads, head_dim;

  /* Stores G heads, of floats already rounded to their tensor's type. */
  void store(int64_t slot, const float* heads) const {
    for (int64_t g = 0; g < num_kv_heads; g++)
      scales[g * num_slots + slot] = quantise_row(heads + g * head_dim, head_dim, codes + (slot * num_kv_heads + g) * head_dim);
  }
};

/* How a cache's tensors stand to each other. `unsupported` for what no cache is. */
template <class Arguments>
inline int32_t check_caches(const Arguments& args) {
  const bool has_codes = args.k_cache.dtype == u8;
  if ((args.v_cache.dtype == u8) != has_codes) return unsupported;
  if ((args.k_scales.data != nullptr) != has_codes || (args.v_scales.data != nullptr) != has_codes) return bad_argument;
  if (has_codes && (args.k_scales.dtype != f32 || args.v_scales.dtype != f32)) return unsupported;
  return ok;
}
template <class Arguments>
inline CodeSlots key_codes(const Arguments& args) {
  return {data<uint8_t>(args.k_cache), data<float>(args.k_scales), args.num_slots, args.num_kv_heads, args.head_dim};
}
template <class Arguments>
inline CodeSlots value_codes(const Arguments& args) {
  return {data<uint8_t>(args.v_cache), data<float>(args.v_scales), args.num_slots, args.num_kv_heads, args.head_dim};
}

}  // namespace nt
