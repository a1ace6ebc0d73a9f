// Instructions that C++ does not reach, and the block's dynamic shared memory: bulk copies, their barriers, and tensor-core products.
// Knows nothing of operators. Source: PTX ISA 8 (mbarrier, cp.async.bulk, bar, mma).
#pragma once

extern __shared__ uint4 dynamic_shared[];

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  uint32_t address;
  asm("{ .reg .u64 t; cvta.to.shared.u64 t, %1; cvt.u32.u64 %0, t; }" : "=r"(address) : "l"(pointer));
  return address;
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

// ---- bulk copies: addresses and sizes are multiples of 16 bytes ----

// Starts a copy from global to shared memory; its bytes count for `barrier`.
__device__ __forceinline__ void copy_bulk_async(void* target, const void* source, uint32_t bytes, uint64_t* barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(target)),
               "l"(source), "r"(bytes), "r"(shared_address(barrier))
               : "memory");
}
// Brings a range into the second-level cache, which is coherent: safe also for memory that is still being written.
__device__ __forceinline__ void prefetch_bulk_l2(const void* address, uint32_t bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(address), "r"(bytes) : "memory");
}

#endif

// ---- tensor cores ----
// Fragments of m16n8k16, lane = 4 g + t: a[0] holds (row g, columns 2t, 2t + 1), a[1] row g + 8, a[2] and a[3] the same rows eight
// columns on; b0 holds (rows 2t, 2t + 1, column g), b1 eight rows on; d[0], d[1] hold (row g, columns 2t, 2t + 1), d[2], d[3] row g + 8.

__device__ __forceinline__ void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
