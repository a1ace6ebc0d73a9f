// kernels/ptx.cuh for the emulator: the same functions in plain C++. Included within the kernels' namespace.
#pragma once

#define dynamic_shared (reinterpret_cast<uint4*>(emulator::dynamic_memory))

inline uint16_t bf16_bits(float x) {
  uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
inline uint32_t bf16x2_bits(float low, float high) {
  return bf16_bits(low) | static_cast<uint32_t>(bf16_bits(high)) << 16;
}
inline uint16_t f16_bits(float x) {
  const _Float16 y = static_cast<_Float16>(x);
  uint16_t bits;
  memcpy(&bits, &y, 2);
  return bits;
}
inline float f16_value(uint16_t bits) {
  _Float16 x;
  memcpy(&x, &bits, 2);
  return static_cast<float>(x);
}
inline float max_nan(float a, float b) { return a != a ? a : b != b ? b : a > b ? a : b; }
inline float fast_sqrt(float x) { return std::sqrt(x); }
inline float fast_reciprocal(float x) { return 1.0f / x; }
inline uint32_t upper_halves(uint32_t low, uint32_t high) { return (low >> 16) | (high & 0xffff0000u); }
inline float fast_exp2(float x) {
  const float y = std::exp2(x);
  return std::fabs(y) < 1.17549435e-38f ? 0.0f : y;
}

inline void expect_aligned(const void* address, int bytes) {
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0) emulator::fail("a misaligned access");
}
inline int32_t load_here(const int32_t* address) { return *address; }
inline uint16_t load_here(const uint16_t* address) { return *address; }
inline float load_here(const float* address) { return *address; }
inline uint4 load_16_streaming(const void* address) {
  expect_aligned(address, 16);
  return *static_cast<const uint4*>(address);
}
inline uint4 load_16_once(const void* address) { return load_16_streaming(address); }
inline uint2 load_8_streaming(const void* address) {
  expect_aligned(address, 8);
  return *static_cast<const uint2*>(address);
}
inline void store_16_streaming(void* address, uint4 raw) {
  expect_aligned(address, 16);
  *static_cast<uint4*>(address) = raw;
}
inline void store_8_streaming(void* address, uint2 raw) {
  expect_aligned(address, 8);
  *static_cast<uint2*>(address) = raw;
}
inline void prefetch_l2(const void*) {}

using SharedAddress = uint64_t;
inline SharedAddress shared_address(const void* pointer) { return reinterpret_cast<SharedAddress>(pointer); }
template <class Word>
Word opaque(Word word) {
  return word;
}

inline void copy_16_async(SharedAddress target, const void* source, bool is_valid) {
  const emulator::Copy copy = {reinterpret_cast<void*>(target), source, is_valid};
  expect_aligned(copy.target, 16);
  expect_aligned(source, 16);
  if (emulator::copies_early()) emulator::perform(copy);
  emulator::current->open_copies.push_back(copy);
}
inline void commit_copies() {
  emulator::current->groups.push_back(std::move(emulator::current->open_copies));
  emulator::current->open_copies.clear();
}
template <int pending>
inline void wait_for_copies() {
  if (emulator::copies_early()) {
    while (emulator::current->groups.size() > pending) emulator::current->groups.pop_front();
  }
  emulator::finish_groups(pending);
}

inline float bf16_value(uint32_t bits) { return __uint_as_float(bits << 16); }

struct Product {
  float* d;
  const uint32_t* a;
  uint32_t b[2];
};
inline void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  static const char site = 0;
  Product own = {d, a, {b0, b1}};
  emulator::meet(&site, &own, [](void** lanes) {
    float tall[16][16], wide[16][8];
    for (int lane = 0; lane < 32; lane++) {
      const Product& product = *static_cast<Product*>(lanes[lane]);
      const int g = lane >> 2, t = lane & 3;
      for (int i = 0; i < 4; i++) {
        const int row = g + (i & 1) * 8, column = 2 * t + (i >> 1) * 8;
        tall[row][column] = bf16_value(product.a[i] & 0xffff);
        tall[row][column + 1] = bf16_value(product.a[i] >> 16);
      }
      for (int i = 0; i < 2; i++) {
        wide[2 * t + i * 8][g] = bf16_value(product.b[i] & 0xffff);
        wide[2 * t + i * 8 + 1][g] = bf16_value(product.b[i] >> 16);
      }
    }
    for (int lane = 0; lane < 32; lane++) {
      const Product& product = *static_cast<Product*>(lanes[lane]);
      const int g = lane >> 2, t = lane & 3;
      for (int i = 0; i < 4; i++) {
        const int row = g + (i >> 1) * 8, column = 2 * t + (i & 1);
        float sum = 0.0f;
        for (int k = 0; k < 16; k++) sum += tall[row][k] * wide[k][column];
        product.d[i] += sum;
      }
    }
  });
}

struct MatrixLoad {
  uint32_t* y;
  const uint16_t* row;
};
template <bool transposes>
inline void load_four_matrices(uint32_t (&y)[4], SharedAddress row) {
  static const char site = 0;
  expect_aligned(reinterpret_cast<const void*>(row), 16);
  MatrixLoad own = {y, reinterpret_cast<const uint16_t*>(row)};
  emulator::meet(&site, &own, [](void** lanes) {
    for (int lane = 0; lane < 32; lane++) {
      const int g = lane >> 2, t = lane & 3;
      for (int matrix = 0; matrix < 4; matrix++) {
        const auto at = [&](int r, int c) -> uint32_t { return static_cast<MatrixLoad*>(lanes[matrix * 8 + r])->row[c]; };
        const uint32_t first = transposes ? at(2 * t, g) : at(g, 2 * t), second = transposes ? at(2 * t + 1, g) : at(g, 2 * t + 1);
        static_cast<MatrixLoad*>(lanes[lane])->y[matrix] = first | second << 16;
      }
    }
  });
}
inline void load_matrices(uint32_t (&y)[4], SharedAddress row) { load_four_matrices<false>(y, row); }
inline void load_matrices_transposed(uint32_t (&y)[4], SharedAddress row) { load_four_matrices<true>(y, row); }

inline void wait_for_previous_kernel() {}
inline void allow_next_kernel() {}
inline void begin_after_previous() {}
