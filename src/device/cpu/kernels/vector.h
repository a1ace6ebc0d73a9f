/*
 * Vectors of f32 as wide as the level's registers, and loading and storing tensors through them.
 *
 * Arithmetic is written with the compiler's vector extension, so that one text serves every level; intrinsics stand only where
 * the extension has no word for the instruction. Narrow element types are widened when they are loaded and rounded to nearest
 * even when they are stored.
 */
#pragma once

#include <initializer_list>
#include <utility>

#include "common.h"

namespace nt {

#if defined(NT_AVX512)
constexpr int width = 16;
#elif defined(NT_AVX2)
constexpr int width = 8;
#else
constexpr int width = 4;
#endif

#define NT_INLINE __attribute__((always_inline))

typedef float vec __attribute__((vector_size(width * 4)));
typedef int32_t ivec __attribute__((vector_size(width * 4)));
typedef uint32_t uvec __attribute__((vector_size(width * 4)));
typedef uint16_t half_words __attribute__((vector_size(width * 2)));
/* Half as many lanes: what f64 arithmetic works on. */
typedef double dvec __attribute__((vector_size(width * 4)));
typedef int64_t lvec __attribute__((vector_size(width * 4)));
typedef float float_half __attribute__((vector_size(width * 2)));
constexpr int double_width = width / 2;

/* The same at any address. */
typedef float vec_anywhere __attribute__((vector_size(width * 4), aligned(4), may_alias));
typedef int32_t ivec_anywhere __attribute__((vector_size(width * 4), aligned(4), may_alias));
typedef double dvec_anywhere __attribute__((vector_size(width * 4), aligned(8), may_alias));
typedef uint16_t half_words_anywhere __attribute__((vector_size(width * 2), aligned(2), may_alias));
typedef float float_half_anywhere __attribute__((vector_size(width * 2), aligned(4), may_alias));

/* body(0) .. body(N - 1) with constant indices: what keeps an array of vectors in registers. */
template <class Body, int... I>
inline NT_INLINE void unrolled(const Body& body, std::integer_sequence<int, I...>) {
  (body(std::integral_constant<int, I>{}), ...);
}
template <int N, class Body>
inline NT_INLINE void unrolled(const Body& body) {
  unrolled(body, std::make_integer_sequence<int, N>{});
}

inline NT_INLINE vec broadcast(float x) {
#if defined(NT_AVX512)
  return _mm512_set1_ps(x);
#elif defined(NT_AVX2)
  return _mm256_set1_ps(x);
#else
  vec result;
  for (int i = 0; i < width; i++) result[i] = x;
  return result;
#endif
}
inline NT_INLINE ivec broadcast(int32_t x) { return ivec{} + x; }
inline NT_INLINE dvec broadcast(double x) { return dvec{} + x; }
inline NT_INLINE ivec lane_numbers() {
  ivec result;
  for (int i = 0; i < width; i++) result[i] = i;
  return result;
}

/* ---- loading and storing ---------------------------------------------------------------------------------------- */

/* How many lanes of a vector belong to the data: all, or fewer at the end of a row. Lanes beyond load as zero. */
struct all_lanes {
  static constexpr int count = width;
};
struct some_lanes {
  int count;
};

inline NT_INLINE vec load_vec(const float* p, all_lanes = {}) { return *reinterpret_cast<const vec_anywhere*>(p); }
inline NT_INLINE void store_vec(float* p, vec x, all_lanes = {}) { *reinterpret_cast<vec_anywhere*>(p) = x; }

/* Words of 16 bits as words of 32 and back; the extension's conversion is several instructions on x86. */
inline NT_INLINE uvec widen(half_words x) {
#if defined(NT_AVX512)
  return (uvec)_mm512_cvtepu16_epi32((__m256i)x);
#elif defined(NT_AVX2)
  return (uvec)_mm256_cvtepu16_epi32((__m128i)x);
#else
  return __builtin_convertvector(x, uvec);
#endif
}
inline NT_INLINE half_words narrow(uvec x) {
#if defined(NT_AVX512)
  return (half_words)_mm512_cvtepi32_epi16((__m512i)x);
#elif defined(NT_AVX2)
  const __m256i packed = _mm256_packus_epi32((__m256i)x, (__m256i)x);
  return (half_words)_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
#else
  return __builtin_convertvector(x, half_words);
#endif
}

inline NT_INLINE vec load_vec(const bf16* p, all_lanes = {}) {
  return (vec)(widen(*reinterpret_cast<const half_words_anywhere*>(p)) << 16);
}

/* The bits of x rounded to bf16, in the high half of each lane; the low half is rubbish. */
inline NT_INLINE uvec round_to_bf16(vec x) {
  const uvec bits = (uvec)x;
  const uvec rounded = bits + 0x7fff + ((bits >> 16) & 1);
  return x == x ? rounded : bits | 0x400000;
}
inline NT_INLINE void store_vec(bf16* p, vec x, all_lanes = {}) {
  *reinterpret_cast<half_words_anywhere*>(p) = narrow(round_to_bf16(x) >> 16);
}

#if defined(NT_AVX512)
inline NT_INLINE __mmask16 first_lanes(some_lanes lanes) { return static_cast<__mmask16>((1u << lanes.count) - 1); }
inline NT_INLINE vec load_vec(const float* p, some_lanes lanes) { return _mm512_maskz_loadu_ps(first_lanes(lanes), p); }
inline NT_INLINE vec load_vec(const bf16* p, some_lanes lanes) {
  const half_words words = (half_words)_mm256_maskz_loadu_epi16(first_lanes(lanes), p);
  return (vec)(widen(words) << 16);
}
inline NT_INLINE void store_vec(float* p, vec x, some_lanes lanes) { _mm512_mask_storeu_ps(p, first_lanes(lanes), x); }
inline NT_INLINE void store_vec(bf16* p, vec x, some_lanes lanes) {
  const half_words words = narrow(round_to_bf16(x) >> 16);
  _mm256_mask_storeu_epi16(p, first_lanes(lanes), (__m256i)words);
}
#else
/* Not inlined: they run once per row, and every loop has one. */
template <class T>
inline __attribute__((noinline)) vec load_vec(const T* p, some_lanes lanes) {
  T all[width] = {};
  std::memcpy(all, p, static_cast<size_t>(lanes.count) * sizeof(T));
  return load_vec(all);
}
template <class T>
inline __attribute__((noinline)) void store_vec(T* p, vec x, some_lanes lanes) {
  T all[width];
  store_vec(all, x);
  std::memcpy(p, all, static_cast<size_t>(lanes.count) * sizeof(T));
}
#endif

/* The next half vector as f64. */
inline NT_INLINE dvec load_doubles(const float* p) {
#if defined(NT_AVX512)
  return _mm512_cvtps_pd(_mm256_loadu_ps(p));
#elif defined(NT_AVX2)
  return _mm256_cvtps_pd(_mm_loadu_ps(p));
#else
  return __builtin_convertvector(*reinterpret_cast<const float_half_anywhere*>(p), dvec);
#endif
}

/* Calls body(i, lanes) for i = begin, begin + width, ... up to end. */
template <class Body>
inline NT_INLINE void for_vectors(int64_t begin, int64_t end, const Body& body) {
  int64_t i = begin;
  for (; i + width <= end; i += width) body(i, all_lanes{});
  if (i < end) body(i, some_lanes{static_cast<int>(end - i)});
}

/* a * b + c with one rounding. */
inline NT_INLINE vec fused(vec a, vec b, vec c) {
#if defined(NT_AVX512)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(NT_AVX2)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(NT_NEON)
  return (vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  for (int i = 0; i < width; i++) c[i] = std::fma(a[i], b[i], c[i]);
  return c;
#endif
}

/* ---- lanes ------------------------------------------------------------------------------------------------------ */

inline NT_INLINE vec max(vec a, vec b) { return a > b ? a : b; }
inline NT_INLINE vec min(vec a, vec b) { return a < b ? a : b; }
/* x with the lanes that do not belong to the data replaced. */
inline NT_INLINE vec or_else(vec x, all_lanes, float) { return x; }
inline NT_INLINE vec or_else(vec x, some_lanes lanes, float other) {
  return lane_numbers() < lanes.count ? x : broadcast(other);
}

inline NT_INLINE float sum_of(vec x) {
#if defined(NT_AVX512)
  return _mm512_reduce_add_ps(x);
#else
  for (int step = width / 2; step > 0; step /= 2)
    for (int i = 0; i < step; i++) x[i] += x[i + step];
  return x[0];
#endif
}
inline NT_INLINE double sum_of(dvec x) {
  for (int step = double_width / 2; step > 0; step /= 2)
    for (int i = 0; i < step; i++) x[i] += x[i + step];
  return x[0];
}
/* The largest lane; a NaN lane may be passed over. */
inline NT_INLINE float max_of(vec x) {
#if defined(NT_AVX512)
  return _mm512_reduce_max_ps(x);
#else
  float result = x[0];
  for (int i = 1; i < width; i++) result = x[i] > result ? x[i] : result;
  return result;
#endif
}

/* ---- tensors of either float type ------------------------------------------------------------------------------- */

/* Stands for "f32 or bf16, looked up at every access": operators whose tensors differ in type. */
struct mixed {};

/* A tensor's elements as vectors of f32; T is float, bf16 or mixed. */
template <class T>
struct Elements {
  T* at;
  explicit Elements(const nt_tensor& tensor) : at(data<T>(tensor)) {}
  NT_INLINE explicit operator bool() const { return at != nullptr; }
  template <class Lanes>
  NT_INLINE vec load(int64_t i, Lanes lanes) const {
    return load_vec(at + i, lanes);
  }
  template <class Lanes>
  NT_INLINE void store(int64_t i, vec x, Lanes lanes) const {
    store_vec(at + i, x, lanes);
  }
};
template <>
struct Elements<mixed> {
  void* at;
  bool is_wide;
  explicit Elements(const nt_tensor& tensor) : at(tensor.data), is_wide(tensor.dtype == f32) {}
  NT_INLINE explicit operator bool() const { return at != nullptr; }
  template <class Lanes>
  NT_INLINE vec load(int64_t i, Lanes lanes) const {
    return is_wide ? load_vec(static_cast<const float*>(at) + i, lanes) : load_vec(static_cast<const bf16*>(at) + i, lanes);
  }
  template <class Lanes>
  NT_INLINE void store(int64_t i, vec x, Lanes lanes) const {
    if (is_wide) store_vec(static_cast<float*>(at) + i, x, lanes);
    else store_vec(static_cast<bf16*>(at) + i, x, lanes);
  }
};

/* Calls body with type_tag<float>, <bf16> or <mixed>, whichever serves these tensors; absent ones do not count. */
template <class Body>
inline int32_t dispatch_elements(std::initializer_list<nt_tensor> tensors, const Body& body) {
  bool has_wide = false, has_narrow = false;
  for (const nt_tensor& tensor : tensors) {
    if (tensor.data == nullptr) continue;
    if (tensor.dtype == f32) has_wide = true;
    else if (tensor.dtype == bf16_code) has_narrow = true;
    else return unsupported;
  }
  if (has_wide && has_narrow) body(type_tag<mixed>{});
  else if (has_narrow) body(type_tag<bf16>{});
  else body(type_tag<float>{});
  return ok;
}

/* Elements per chunk handed to a thread by pointwise operators. */
constexpr int64_t pointwise_grain = 1 << 14;

}  // namespace nt
