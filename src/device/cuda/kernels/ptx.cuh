// Every instruction that C++ does not reach, and the block's dynamic shared memory: conversions, cache-aware accesses,
// asynchronous and bulk copies with their barriers, and tensor-core products. Nothing else in this folder holds assembly, so that
// another implementation of this one file (test/cuda/emulator) runs all kernels on a CPU. Knows nothing of operators.
// Source: PTX ISA 8 (cvt, ld, st, cp.async, cp.async.bulk.tensor, mbarrier, ldmatrix, mma, wgmma, mapa, griddepcontrol).
#pragma once

extern __shared__ uint4 dynamic_shared[];

// ---- conversions, to nearest even ----

__device__ __forceinline__ uint16_t bf16_bits(float x) {
  uint16_t y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
}
// Both halves in one instruction; `low` is the first in memory.
__device__ __forceinline__ uint32_t bf16x2_bits(float low, float high) {
  uint32_t y;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  return y;
}
// The upper halves of two words, that of `low` first in memory: two f32 cut to bf16.
__device__ __forceinline__ uint32_t upper_halves(uint32_t low, uint32_t high) {
  uint32_t y;
  asm("prmt.b32 %0, %1, %2, 0x7632;" : "=r"(y) : "r"(low), "r"(high));
  return y;
}
__device__ __forceinline__ uint16_t f16_bits(float x) {
  uint16_t y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float f16_value(uint16_t bits) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(bits));
  return y;
}

#if __CUDA_ARCH__ >= 890
// To nearest even, bounded by the largest number; `low` is the first in memory. float8.cuh has the same for older machines.
__device__ __forceinline__ uint16_t e4m3x2_bits(float low, float high) {
  uint16_t y;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(y) : "f"(high), "f"(low));
  return y;
}
__device__ __forceinline__ uint32_t f16x2_of_e4m3x2(uint16_t bits) {
  uint32_t y;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(y) : "h"(bits));
  return y;
}
#endif

// ---- arithmetic ----

// fmaxf drops NaN; a NaN among the inputs must reach the result.
__device__ __forceinline__ float max_nan(float a, float b) {
  float y;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
}
// With a relative error below 2^-22.
__device__ __forceinline__ float fast_sqrt(float x) {
  float y;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// With a relative error of one unit in the last place; for x below 2^126 (subnormal quotients are zero).
__device__ __forceinline__ float fast_reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// 2^x with a relative error below 2^-22; subnormal results are zero.
__device__ __forceinline__ float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// ---- memory ----

// A word whose read starts here: the compiler would move it down to where the word is needed, behind what other reads decide.
__device__ __forceinline__ int32_t load_here(const int32_t* address) {
  int32_t word;
  asm volatile("ld.global.s32 %0, [%1];" : "=r"(word) : "l"(address));
  return word;
}
__device__ __forceinline__ uint16_t load_here(const uint16_t* address) {
  uint16_t bits;
  asm volatile("ld.global.u16 %0, [%1];" : "=h"(bits) : "l"(address));
  return bits;
}
__device__ __forceinline__ float load_here(const float* address) {
  float value;
  asm volatile("ld.global.f32 %0, [%1];" : "=f"(value) : "l"(address));
  return value;
}
// For data that is read once: leaves the first-level cache to others.
__device__ __forceinline__ uint4 load_16_streaming(const void* address) {
  uint4 raw;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(raw.x), "=r"(raw.y), "=r"(raw.z), "=r"(raw.w)
               : "l"(address));
  return raw;
}
// For data that is not read again at all: leaves the second-level cache, too.
__device__ __forceinline__ uint4 load_16_once(const void* address) {
  uint4 raw;
  asm volatile("ld.global.cs.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(raw.x), "=r"(raw.y), "=r"(raw.z), "=r"(raw.w)
               : "l"(address));
  return raw;
}
__device__ __forceinline__ uint2 load_8_streaming(const void* address) {
  uint2 raw;
  asm volatile("ld.global.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(raw.x), "=r"(raw.y) : "l"(address));
  return raw;
}
// For data that is not read again soon.
__device__ __forceinline__ void store_16_streaming(void* address, uint4 raw) {
  asm volatile("st.global.cs.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(address), "r"(raw.x), "r"(raw.y), "r"(raw.z), "r"(raw.w)
               : "memory");
}
__device__ __forceinline__ void store_8_streaming(void* address, uint2 raw) {
  asm volatile("st.global.cs.v2.u32 [%0], {%1, %2};" ::"l"(address), "r"(raw.x), "r"(raw.y) : "memory");
}
// Brings a line into the second-level cache to stay, which is coherent: safe also for memory that is still being written.
__device__ __forceinline__ void prefetch_l2(const void* address) {
  asm volatile("prefetch.global.L2::evict_last [%0];" ::"l"(address));
}

// An address in shared memory, in bytes.
using SharedAddress = uint32_t;
__device__ __forceinline__ SharedAddress shared_address(const void* pointer) {
  SharedAddress address;
  asm("{ .reg .u64 t; cvta.to.shared.u64 t, %1; cvt.u32.u64 %0, t; }" : "=r"(address) : "l"(pointer));
  return address;
}
// The same value, of which the compiler knows nothing: keeps what is derived from it inside the loop that uses it.
__device__ __forceinline__ uint32_t opaque(uint32_t word) {
  asm volatile("" : "+r"(word));
  return word;
}

// Starts a copy of 16 bytes from global to shared memory; writes zeros where `is_valid` is false.
__device__ __forceinline__ void copy_16_async(SharedAddress target, const void* source, bool is_valid) {
  const int source_bytes = is_valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(source),
               "r"(source_bytes)
               : "memory");
}
// Closes the group of copies that this thread has started.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most `pending` of this thread's groups are under way. Others see the data after a barrier.
template <int pending>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// ---- tensor cores ----
// Fragments of m16n8k16, lane = 4 g + t: a[0] holds (row g, columns 2t, 2t + 1), a[1] row g + 8, a[2] and a[3] the same rows eight
// columns on; b[0] holds (rows 2t, 2t + 1, column g), b[1] eight rows on; d[0], d[1] hold (row g, columns 2t, 2t + 1), d[2], d[3] row g + 8.

__device__ __forceinline__ void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// Four 8 x 8 matrices of 16-bit elements; lane i gives the address of row i mod 8 of matrix i / 8.
__device__ __forceinline__ void load_matrices(uint32_t (&y)[4], SharedAddress row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(y[0]), "=r"(y[1]), "=r"(y[2]), "=r"(y[3])
               : "r"(row)
               : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&y)[4], SharedAddress row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(y[0]), "=r"(y[1]), "=r"(y[2]), "=r"(y[3])
               : "r"(row)
               : "memory");
}

// ---- barriers ----

// Barrier number `barrier` (1 to 15) among `threads` threads, whole warps of the block.
template <int threads>
__device__ __forceinline__ void sync_threads(int barrier) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "n"(threads) : "memory");
}

#if __CUDA_ARCH__ >= 900

// A barrier in shared memory that completes phase after phase: each by `count` arrivals and all bytes that were announced.
__device__ __forceinline__ void init_barrier(uint64_t* barrier, uint32_t count) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count) : "memory");
}
// Makes initialised barriers known to bulk copies.
__device__ __forceinline__ void publish_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ __forceinline__ void arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
// Arrives, and announces bytes that copies will bring in this phase.
__device__ __forceinline__ void arrive_expecting(uint64_t* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes) : "memory");
}
// Waits for the end of the phase of this parity; the phase before the first counts as ended with parity 1.
__device__ __forceinline__ void wait_for_phase(uint64_t* barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

// ---- tensor copies ----

// What cuTensorMapEncodeTiled gives: a matrix and how tiles of it are laid out. Lies in the kernel's parameters.
struct alignas(64) TileMap {
  uint64_t words[16];
};
// For a matrix that is read once: the first to leave the second-level cache; and for one that many blocks read: the last.
constexpr uint64_t evict_first = 0x12f0000000000000, evict_last = 0x14f0000000000000;
// Starts a copy of the tile from row `row` and box `box` of 128 bytes of each row on to shared memory, zeros for what lies outside; all the tile's bytes count for
// `barrier`.
__device__ __forceinline__ void copy_tile_async(SharedAddress target, const TileMap& map, int row, int box, uint64_t* barrier,
                                                uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(
          target),
      "l"(&map), "r"(0), "r"(row), "r"(box), "r"(shared_address(barrier)), "l"(policy)
      : "memory");
}

// ---- clusters of blocks ----

__device__ __forceinline__ uint32_t cluster_rank() {
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
__device__ __forceinline__ uint32_t cluster_size() {
  uint32_t size;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
  return size;
}
// Waits for all threads of the cluster; what they wrote to shared memory before is visible after.
__device__ __forceinline__ void sync_cluster() {
  asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}
// The float at the place in another block's shared memory that `address` is in one's own; between two sync_cluster.
__device__ __forceinline__ float load_from_block(SharedAddress address, uint32_t rank) {
  float value;
  asm volatile("{ .reg .u32 there; mapa.shared::cluster.u32 there, %1, %2; ld.shared::cluster.f32 %0, [there]; }"
               : "=f"(value)
               : "r"(address), "r"(rank));
  return value;
}

#endif

// ---- tensor cores, by a group of four warps that starts at a multiple of four (Hopper alone) ----
// d[4 j + i] of lane 4 g + t of warp w: row 16 w + g (i = 2, 3: eight on), column 8 j + 2 t (i = 1, 3: one on). Both factors lie in shared memory,
// rows of 128 bytes in the 128-byte swizzle, as copy_tile_async brings them.

#if __CUDA_ARCH__ == 900

// What products read of a factor: its address, eight rows 1,024 bytes apart, the 128-byte swizzle. 32 bytes of each row on: plus 2.
__device__ __forceinline__ uint64_t factor(SharedAddress address) {
  return static_cast<uint64_t>((address & 0x3ffff) >> 4) | uint64_t{1} << 16 | uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62;
}
// Before the first product of a group, and after other instructions that touched its sums.
__device__ __forceinline__ void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most `pending` of the committed groups are under way.
template <int pending>
__device__ __forceinline__ void wait_for_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}
// Starts d += a b^T: 64 rows of a, two columns of the result per element of d and lane group; 16 columns of bf16, 32 of E4M3.
#define GROUP_PRODUCTS(name, types, transposes)                                                                   \
  __device__ __forceinline__ void name(float (&d)[4], uint64_t a, uint64_t b) {                                   \
    asm volatile(                                                                                                 \
        "{ .reg .pred adds; setp.ne.b32 adds, 1, 0; wgmma.mma_async.sync.aligned.m64n8" types " "                 \
        "{%0, %1, %2, %3}, "                                                                                      \
        "%4, %5, adds, 1, 1" transposes "; }"                                                                     \
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                          \
        : "l"(a), "l"(b));                                                                                        \
  }                                                                                                               \
  __device__ __forceinline__ void name(float (&d)[8], uint64_t a, uint64_t b) {                                   \
    asm volatile(                                                                                                 \
        "{ .reg .pred adds; setp.ne.b32 adds, 1, 0; wgmma.mma_async.sync.aligned.m64n16" types " "                \
        "{%0, %1, %2, %3, %4, %5, %6, %7}, "                                                                      \
        "%8, %9, adds, 1, 1" transposes "; }"                                                                     \
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7])          \
        : "l"(a), "l"(b));                                                                                        \
  }                                                                                                               \
  __device__ __forceinline__ void name(float (&d)[16], uint64_t a, uint64_t b) {                                  \
    asm volatile(                                                                                                 \
        "{ .reg .pred adds; setp.ne.b32 adds, 1, 0; wgmma.mma_async.sync.aligned.m64n32" types " "                \
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "                                \
        "%16, %17, adds, 1, 1" transposes "; }"                                                                   \
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),         \
          "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15])    \
        : "l"(a), "l"(b));                                                                                        \
  }                                                                                                               \
  __device__ __forceinline__ void name(float (&d)[32], uint64_t a, uint64_t b) {                                  \
    asm volatile(                                                                                                 \
        "{ .reg .pred adds; setp.ne.b32 adds, 1, 0; wgmma.mma_async.sync.aligned.m64n64" types " "                \
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, "   \
        "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "                                                     \
        "%32, %33, adds, 1, 1" transposes "; }"                                                                   \
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),         \
          "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),   \
          "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), \
          "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])  \
        : "l"(a), "l"(b));                                                                                        \
  }
GROUP_PRODUCTS(multiply_add_group_bf16, "k16.f32.bf16.bf16", ", 0, 0")
GROUP_PRODUCTS(multiply_add_group_e4m3, "k32.f32.e4m3.e4m3", "")
#undef GROUP_PRODUCTS

#endif

// ---- programmatic dependent launch (LaunchShape.overlapsPrevious) ----

// Waits until everything that the previous kernel wrote is visible.
__device__ __forceinline__ void wait_for_previous_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// Lets the next kernel of the stream start its prologue.
__device__ __forceinline__ void allow_next_kernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}
// The first line of a kernel that is launched so: lets its successor come in, then waits for its predecessor.
__device__ __forceinline__ void begin_after_previous() {
  allow_next_kernel();
  wait_for_previous_kernel();
}
