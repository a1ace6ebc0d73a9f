/*
 * What every CPU kernel builds on: element types, status codes, the thread pool and scratch memory.
 *
 * A kernel file includes this header and defines entry points with NT_OP; the dispatch table of runtime.cpp finds them by
 * name, so a new file needs no other change. Entry points check dtypes before anything else, return a Status and never
 * print, throw or exit. The file is compiled once per instruction-set level (see levels.ts), with NT_LEVEL_* below.
 */
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define NT_AVX512 1
#endif
#if defined(NT_AVX512) && defined(__AVX512BF16__)
#define NT_AVX512_BF16 1
#endif
#if defined(__AVX2__) && defined(__FMA__)
#define NT_AVX2 1
#endif
#if defined(__aarch64__) && defined(__ARM_NEON)
#define NT_NEON 1
#endif
#if defined(NT_AVX2)
#include <immintrin.h>
#elif defined(NT_NEON)
#include <arm_neon.h>
#endif

struct nt_tensor {
  void* data;    /* null: the optional tensor is absent */
  int64_t dtype; /* nt::Dtype */
};

#include "nt_ops.h" /* generated from the operator table by header.ts */

/* Defines the entry point of operator `name` (snake_case); `args` is its nt_<name>_args. */
#define NT_OP(name)                                                         \
  static int32_t nt_##name##_body(const nt_##name##_args& args);            \
  extern "C" int32_t nt_##name(const int64_t* slots) {                      \
    return nt_##name##_body(*reinterpret_cast<const nt_##name##_args*>(slots)); \
  }                                                                         \
  static int32_t nt_##name##_body([[maybe_unused]] const nt_##name##_args& args)

namespace nt {

enum Status : int32_t { ok = 0, unsupported = 1, bad_argument = 2, out_of_memory = 3, missing = 4 };

/* The codes of src/base/dtype.ts. */
enum Dtype : int64_t { f32 = 0, bf16_code = 1, f16_code = 2, f64 = 3, i32 = 4, i64 = 5, u8 = 6 };

/* ---- element types ---------------------------------------------------------------------------------------------- */

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

template <class To, class From>
inline To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast needs equal sizes");
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}

inline float to_float(float x) { return x; }
inline float to_float(bf16 x) { return bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }
inline float to_float(f16 x) {
#if defined(__F16C__)
  return _cvtsh_ss(x.bits);
#else
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000) << 16;
  const uint32_t exponent = (x.bits >> 10) & 31, fraction = x.bits & 1023;
  if (exponent == 31) return bit_cast<float>(sign | 0x7f800000 | fraction << 13);
  if (exponent != 0) return bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
  const float tiny = static_cast<float>(fraction) * 5.9604644775390625e-8f; /* 2^-24 */
  return sign ? -tiny : tiny;
#endif
}

/* Round to nearest even; NaN stays NaN. */
inline bf16 to_bf16(float x) {
  const uint32_t bits = bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const uint32_t quiet = (bits >> 16) | 0x40;
  return {static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded)};
}
inline f16 to_f16(float x) {
#if defined(__F16C__)
  return {static_cast<uint16_t>(_cvtss_sh(x, 0))};
#else
  const uint32_t bits = bit_cast<uint32_t>(x);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return {static_cast<uint16_t>(sign | 0x7e00)};
  if (magnitude >= 0x477ff000) return {static_cast<uint16_t>(sign | 0x7c00)};
  if (magnitude < 0x38800000) { /* subnormal: let the addition of 0.5 round at 2^-24 */
    const float shifted = bit_cast<float>(magnitude) + 0.5f;
    return {static_cast<uint16_t>(sign | (bit_cast<uint32_t>(shifted) - 0x3f000000))};
  }
  return {static_cast<uint16_t>(sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13))};
#endif
}

template <class T>
inline T from_float(float x);
template <>
inline float from_float<float>(float x) {
  return x;
}
template <>
inline bf16 from_float<bf16>(float x) {
  return to_bf16(x);
}
template <>
inline f16 from_float<f16>(float x) {
  return to_f16(x);
}

template <class T>
inline float load(const T* p) {
  return to_float(*p);
}
template <class T>
inline void store(T* p, float value) {
  *p = from_float<T>(value);
}

template <class T>
inline T* data(const nt_tensor& tensor) {
  return static_cast<T*>(tensor.data);
}

template <class T>
struct type_tag {
  using type = T;
};

/* Calls body(type_tag<float>) or body(type_tag<bf16>); its result, or `ok` where it has none; else `unsupported`. */
template <class Body>
inline int32_t dispatch_float(int64_t dtype, Body&& body) {
  auto call = [&](auto tag) -> int32_t {
    if constexpr (std::is_void_v<decltype(body(tag))>) {
      body(tag);
      return ok;
    } else {
      return body(tag);
    }
  };
  if (dtype == f32) return call(type_tag<float>{});
  if (dtype == bf16_code) return call(type_tag<bf16>{});
  return unsupported;
}

inline constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
template <class T>
inline constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
inline constexpr T max(T a, T b) {
  return a < b ? b : a;
}

/* ---- thread pool ------------------------------------------------------------------------------------------------ */

/* The threads the running command may use, the caller included. */
int num_threads();

/* Index of the calling thread within the running parallel loop, 0 outside of one. */
int thread_index();

/* Calls body(context, part) for part = 0 .. num_parts - 1 (at most num_threads()), each on its own thread, and waits. */
void run_parts(int num_parts, void (*body)(void* context, int part), void* context);

/* Sets a flag that several threads of a loop may set, and that is read after it. */
inline void raise_flag(bool& flag) { __atomic_store_n(&flag, true, __ATOMIC_RELAXED); }

/* Memory of one thread: 64-byte aligned, at least `bytes`, not initialised; the same memory at every call. Null if none. */
void* scratch(int thread, int64_t bytes);
/* Memory shared by all threads of a command, by slot 0 .. 7; call it outside of parallel loops. Null if none. */
void* shared_scratch(int slot, int64_t bytes);

/* Cuts 0 .. num_items into contiguous chunks, one per thread, at multiples of `grain`, and calls
 * body(begin, end, thread_index) for each. Fewer chunks than threads where there are few grains. Nested calls run serially.
 * For results that do not depend on the thread count, reduce in blocks of `grain` items. */
template <class Body>
inline void parallel_for(int64_t num_items, int64_t grain, const Body& body) {
  if (num_items <= 0) return;
  if (grain < 1) grain = 1;
  const int64_t num_grains = ceil_div(num_items, grain);
  const int num_parts = static_cast<int>(min<int64_t>(num_threads(), num_grains));
  if (num_parts <= 1) {
    body(int64_t{0}, num_items, thread_index());
    return;
  }
  struct Context {
    const Body* body;
    int64_t num_items, grain, num_grains;
    int num_parts;
  } context{&body, num_items, grain, num_grains, num_parts};
  run_parts(
      num_parts,
      [](void* pointer, int part) {
        const Context& c = *static_cast<const Context*>(pointer);
        const int64_t begin = c.num_grains * part / c.num_parts * c.grain;
        const int64_t end = min(c.num_grains * (part + 1) / c.num_parts * c.grain, c.num_items);
        (*c.body)(begin, end, part);
      },
      &context);
}

/* Calls body(task, thread_index) for every task in 0 .. num_tasks; threads take the next task when they are free, so a
 * task's result must not depend on who runs it. */
template <class Body>
inline void parallel_tasks(int64_t num_tasks, const Body& body) {
  const int num_parts = static_cast<int>(min<int64_t>(num_threads(), num_tasks));
  if (num_parts <= 1) {
    for (int64_t task = 0; task < num_tasks; task++) body(task, thread_index());
    return;
  }
  struct Context {
    const Body* body;
    int64_t num_tasks;
    alignas(64) int64_t next;
  } context{&body, num_tasks, 0};
  run_parts(
      num_parts,
      [](void* pointer, int part) {
        Context& c = *static_cast<Context*>(pointer);
        for (;;) {
          const int64_t task = __atomic_fetch_add(&c.next, 1, __ATOMIC_RELAXED);
          if (task >= c.num_tasks) return;
          (*c.body)(task, part);
        }
      },
      &context);
}

}  // namespace nt
