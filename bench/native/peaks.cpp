/*
 * The physical limits that the CPU benchmarks are held against, multiply-add from registers alone, and
 * reading memory.
 * Compiled like the kernels, for the same instruction-set level.
 */
#include <cstdint>
#include <thread>
#include <utility>
#include <vector>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

/* Holds a vector in a register, so that the compiler cannot fold a loop away. */
#if defined(__AVX512F__)
#define NT_VECTOR(x) "+v"(x)
#elif defined(__x86_64__)
#define NT_VECTOR(x) "+x"(x)
#else
#define NT_VECTOR(x) "+w"(x)
#endif
#define NT_EXPORT extern "C" __attribute__((visibility("default")))

namespace {
#if defined(__AVX512F__)
constexpr int width = 16;
#elif defined(__AVX2__)
constexpr int width = 8;
#else
constexpr int width = 4;
#endif
typedef float vec __attribute__((vector_size(width * 4)));

/* body(0) .. body(N - 1) with constant indices: what keeps an array of vectors in registers. */
template <class Body, int... I>
inline __attribute__((always_inline)) void unrolled(const Body& body, std::integer_sequence<int, I...>) {
  (body(std::integral_constant<int, I>{}), ...);
}
template <int N, class Body>
inline __attribute__((always_inline)) void unrolled(const Body& body) {
  unrolled(body, std::make_integer_sequence<int, N>{});
}

/* Enough independent sums to hide the latency of a multiply-add. */
constexpr int num_chains = 12;
}  // namespace

namespace {
/* Runs `body` on each of some threads at once; gives the sum of what they give. */
template <class Body>
int64_t on_threads(int32_t num_threads, const Body& body) {
  std::vector<int64_t> results(num_threads);
  std::vector<std::thread> threads;
  for (int t = 1; t < num_threads; t++) threads.emplace_back([&, t] { results[t] = body(); });
  results[0] = body();
  for (std::thread& thread : threads) thread.join();
  int64_t total = 0;
  for (int64_t result : results) total += result;
  return total;
}

int64_t f32_peak(int64_t iterations) {
  vec sum[num_chains];
  const vec x = vec{} + 0.5f, y = vec{} + 0.25f;
  unrolled<num_chains>([&](auto c) __attribute__((always_inline)) { sum[c] = x + static_cast<float>(c); });
  for (int64_t i = 0; i < iterations; i++) {
    unrolled<num_chains>([&](auto c) __attribute__((always_inline)) {
      sum[c] = sum[c] * x + y;
      asm volatile("" : NT_VECTOR(sum[c]));
    });
  }
  return iterations * num_chains * width * 2;
}

/* The same with bf16 pairs and f32 sums; 0 where the instruction is missing. */
int64_t bf16_peak(int64_t iterations) {
#if defined(__AVX512BF16__)
  __m512 sum[num_chains];
  const __m512bh x = (__m512bh)_mm512_set1_epi16(0x3f00), y = (__m512bh)_mm512_set1_epi16(0x3e80);
  unrolled<num_chains>([&](auto c) __attribute__((always_inline)) { sum[c] = _mm512_set1_ps(static_cast<float>(c)); });
  for (int64_t i = 0; i < iterations; i++) {
    unrolled<num_chains>([&](auto c) __attribute__((always_inline)) {
      sum[c] = _mm512_dpbf16_ps(sum[c], x, y);
      asm volatile("" : NT_VECTOR(sum[c]));
    });
  }
  return iterations * num_chains * 64;
#else
  (void)iterations;
  return 0;
#endif
}

}  // namespace

/* Runs `iterations` rounds of independent f32 multiply-adds on each thread; gives the number of floating-point operations. */
NT_EXPORT int64_t bench_f32_peak(int64_t iterations, int32_t num_threads) {
  return on_threads(num_threads, [=] { return f32_peak(iterations); });
}
NT_EXPORT int64_t bench_bf16_peak(int64_t iterations, int32_t num_threads) {
  return on_threads(num_threads, [=] { return bf16_peak(iterations); });
}

namespace {
/* Eight runs side by side with prefetching: the most of what we tried. */
float read_part(const float* memory, int64_t num_floats) {
  vec sum[8] = {};
  const int64_t run = num_floats / 8;
  for (int64_t i = 0; i < run; i += width) {
    unrolled<8>([&](auto c) __attribute__((always_inline)) {
      const float* place = memory + c * run + i;
      __builtin_prefetch(place + 256, 0, 2);
      sum[c] += *reinterpret_cast<const vec*>(place);
    });
  }
  float total = 0;
  for (const vec& part : sum)
    for (int i = 0; i < width; i++) total += part[i];
  return total;
}
}  // namespace

/* Reads `bytes` of `memory` (a multiple of 4 KiB for each thread); gives a value that depends on all of them. */
NT_EXPORT float bench_read(const float* memory, int64_t bytes, int32_t num_threads) {
  const int64_t part = bytes / 4 / num_threads;
  std::vector<float> totals(num_threads);
  std::vector<std::thread> threads;
  for (int t = 1; t < num_threads; t++) threads.emplace_back([&, t] { totals[t] = read_part(memory + t * part, part); });
  totals[0] = read_part(memory, part);
  for (std::thread& thread : threads) thread.join();
  float total = 0;
  for (float value : totals) total += value;
  return total;
}
