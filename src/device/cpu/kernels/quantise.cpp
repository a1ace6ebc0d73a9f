/*
 * Weights to codes and back. Codes are made in f32, step by step as the operator table says, so that every backend makes the same
 * ones.
 */
#include "quantised.h"

namespace nt::quantised {
namespace {

/* Elements of a group that are worked on at once. */
constexpr int64_t piece = 256;

template <class T>
void load_piece(const T* from, int64_t count, float* to) {
  for_vectors(0, count, [&](int64_t i, auto lanes) NT_INLINE { store_vec(to + i, load_vec(from + i, lanes), lanes); });
}

/* The first value of the largest magnitude. */
template <class T>
float extreme_of(const T* x, int64_t count) {
  vec peaks = {};
  for_vectors(0, count, [&](int64_t i, auto lanes) NT_INLINE {
    const vec value = load_vec(x + i, lanes);
    peaks = max(peaks, max(value, -value));
  });
  const float peak = max_of(peaks);
  for (int64_t i = 0; i < count; i++)
    if (std::fabs(load(x + i)) == peak) return load(x + i);
  return 0;
}

/* Nearest NF4 codes by counting the midpoints below. */
void nearest_nf4(const float* x, int64_t count, uint8_t* codes) {
  float between[15];
  for (int i = 0; i < 15; i++)
    between[i] = static_cast<float>((static_cast<double>(nf4_values[i]) + static_cast<double>(nf4_values[i + 1])) / 2);
  int32_t found[piece] = {};
  for (int level = 0; level < 15; level++)
    for (int64_t i = 0; i < count; i++) found[i] += x[i] > between[level] ? 1 : 0;
  for (int64_t i = 0; i < count; i++) codes[i] = static_cast<uint8_t>(found[i]);
}

/* Codes of up to `piece` values, one a byte. */
void make_codes(int64_t format, float* x, int64_t count, float inverse, uint8_t* codes) {
  for (int64_t i = 0; i < count; i++) x[i] *= inverse;
  if (format == nf4) {
    nearest_nf4(x, count, codes);
  } else if (format == int8) {
    for (int64_t i = 0; i < count; i++) codes[i] = static_cast<uint8_t>(static_cast<int32_t>(std::nearbyint(x[i])));
  } else {
    for (int64_t i = 0; i < count; i++)
      codes[i] = static_cast<uint8_t>(min(15, 8 + static_cast<int32_t>(std::nearbyint(x[i]))));
  }
}

struct GroupScale {
  float scale, inverse;
};

GroupScale scale_of(int64_t format, float extreme) {
  const float peak = std::fabs(extreme);
  const float scale = format == int8 ? peak / 127.0f : format == nf4 ? peak : extreme / -8.0f;
  if (scale == 0) return {0, 0};
  return {scale, format == int8 ? 127.0f / peak : 1.0f / scale};
}

template <class T>
void quantise_row(const nt_quantise_args& args, int64_t row, int64_t num_groups) {
  const T* x = data<T>(args.x) + row * args.width;
  uint8_t* codes = data<uint8_t>(args.codes) + row * row_bytes(args.format, args.width);
  float values[piece];
  uint8_t bytes[piece];
  for (int64_t group = 0; group < num_groups; group++) {
    const int64_t begin = group * args.group_size, end = min(begin + args.group_size, args.width);
    const GroupScale found = scale_of(args.format, extreme_of(x + begin, end - begin));
    data<float>(args.scales)[row * num_groups + group] = found.scale;
    for (int64_t i = begin; i < end; i += piece) {
      const int64_t count = min(piece, end - i);
      load_piece(x + i, count, values);
      make_codes(args.format, values, count, found.inverse, bytes);
      if (args.format == int8) {
        std::memcpy(codes + i, bytes, static_cast<size_t>(count));
        continue;
      }
      if (count % 2 != 0) bytes[count] = 0; /* count < piece: pieces are even */
      for (int64_t pair = 0; pair < count; pair += 2)
        codes[(i + pair) / 2] = static_cast<uint8_t>(bytes[pair] << 4 | bytes[pair + 1]);
    }
  }
}

/* A decoded block in order. */
template <class Codes>
NT_INLINE inline void store_ordered(const vec (&decoded)[vectors_per_block], float* to) {
  if constexpr (!Codes::is_split) {
    unrolled<vectors_per_block>([&](auto i) NT_INLINE { store_vec(to + i * width, decoded[i]); });
  } else {
#if defined(NT_AVX512)
    const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    store_vec(to, (vec)_mm512_permutex2var_ps(decoded[0], first, decoded[1]));
    store_vec(to + width, (vec)_mm512_permutex2var_ps(decoded[0], second, decoded[1]));
#else
    float split[block];
    for (int i = 0; i < vectors_per_block; i++) store_vec(split + i * width, decoded[i]);
    for (int i = 0; i < block / 2; i++) {
      to[2 * i] = split[i];
      to[2 * i + 1] = split[block / 2 + i];
    }
#endif
  }
}

template <class Codes, class T>
void dequantise_row(const nt_dequantise_args& args, const Scales& scales, int64_t row, int64_t num_groups) {
  const Codes table(values_of(args.format));
  const int64_t num_bytes = row_bytes(args.format, args.width);
  const uint8_t* codes = data<uint8_t>(args.codes) + row * num_bytes;
  T* y = data<T>(args.y) + row * args.width;
  for (int64_t group = 0; group < num_groups; group++) {
    const int64_t begin = group * args.group_size, end = min(begin + args.group_size, args.width);
    const vec scale = broadcast(scales[row * num_groups + group]);
    for (int64_t i = begin; i < end; i += block) {
      const uint8_t* at = codes + i / block * Codes::bytes;
      const int64_t count = min<int64_t>(block, end - i);
      vec decoded[vectors_per_block];
      float ordered[block];
      if (count == block) table.decode(at, decoded);
      else table.decode(LastBlock<Codes>(at, codes + num_bytes - at).bytes, decoded);
      store_ordered<Codes>(decoded, ordered);
      for_vectors(0, count, [&](int64_t j, auto lanes) NT_INLINE {
        store_vec(y + i + j, scale * load_vec(ordered + j, lanes), lanes);
      });
    }
  }
}

template <class Body>
void for_rows(int64_t num_rows, int64_t columns, const Body& body) {
  parallel_for(num_rows, max<int64_t>(1, pointwise_grain / max<int64_t>(columns, 1)), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; row++) body(row);
  });
}

}  // namespace
}  // namespace nt::quantised

NT_OP(quantise) {
  using namespace nt;
  using namespace nt::quantised;
  if (args.codes.dtype != u8 || args.scales.dtype != f32) return unsupported;
  return dispatch_float(args.x.dtype, [&](auto tag) -> int32_t {
    if (!is_format(args.format) || !are_groups(args.group_size, args.width)) return bad_argument;
    const int64_t num_groups = ceil_div(args.width, args.group_size);
    for_rows(args.num_rows, args.width, [&](int64_t row) { quantise_row<typename decltype(tag)::type>(args, row, num_groups); });
    return ok;
  });
}

NT_OP(dequantise) {
  using namespace nt;
  using namespace nt::quantised;
  Scales scales;
  const int32_t status = read_scales(args, &scales);
  if (status == unsupported) return unsupported;
  return dispatch_float(args.y.dtype, [&](auto tag) -> int32_t {
    using T = typename decltype(tag)::type;
    if (status != ok || !are_groups(args.group_size, args.width)) return bad_argument;
    const int64_t num_groups = ceil_div(args.width, args.group_size);
    for_rows(args.num_rows, args.width, [&](int64_t row) {
      if (args.format == int8) dequantise_row<Int8Codes, T>(args, scales, row, num_groups);
      else dequantise_row<PackedCodes, T>(args, scales, row, num_groups);
    });
    return ok;
  });
}
