// Runs CUDA C++ on a CPU, one block at a time: every thread of a block is a fiber, warp-wide instructions meet when all lanes have
// come, and barriers when all threads have. For finding wrong kernels where there is no GPU, not for speed. What it shows that a
// GPU may hide: waits for asynchronous copies that are missing (data arrive as late as they may), divergence at
// warp-wide instructions, and missing barriers (warps run as far apart as barriers allow; NAUTILUS_EMULATOR_ORDER=reverse turns
// their order and that of the blocks round, and NAUTILUS_EMULATOR_COPIES=early lets copies arrive at once).
// x86-64 with g++ or clang.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static
#define __restrict__ __restrict

struct uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };
struct dim3 { unsigned x, y, z; };

namespace emulator {

[[noreturn]] inline void fail(const char* message);

struct Warp {
  void* arguments[32];
  const void* site = nullptr;
  int size = 0;
  int arrived = 0;
  long generation = 0;
};

struct Copy {
  void* target;
  const void* source;
  bool is_valid;
};

struct Thread {
  void* stack_pointer;
  dim3 index;
  int lane;
  Warp* warp;
  bool is_done;
  // What it waits for; null when it can run.
  const long* waits_on;
  long waits_for;
  std::vector<Copy> open_copies;
  std::deque<std::vector<Copy>> groups;
};

constexpr size_t stack_bytes = 256 * 1024;

struct Block {
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  int live = 0;
  int arrived = 0;
  long generation = 0;
  dim3 index, size, grid;
};

inline Block block;
inline Thread* current;
inline void* scheduler_stack;
inline std::vector<char*> stacks;
inline void (*body)(const void*);
inline const void* body_arguments;
inline const char* kernel_name = "";
alignas(1024) inline unsigned char dynamic_memory[256 * 1024];

inline bool copies_early() {
  static const char* value = getenv("NAUTILUS_EMULATOR_COPIES");
  return value != nullptr && strcmp(value, "early") == 0;
}
inline bool reverse_order() {
  static const char* value = getenv("NAUTILUS_EMULATOR_ORDER");
  return value != nullptr && strcmp(value, "reverse") == 0;
}

inline void fail(const char* message) {
  fprintf(stderr, "emulator: %s in %s, block (%u, %u, %u), thread (%u, %u)\n", message, kernel_name, block.index.x,
          block.index.y, block.index.z, current ? current->index.x : 0, current ? current->index.y : 0);
  abort();
}

// Saves the callee-saved registers on the old stack and goes on from those on the new one.
extern "C" void nautilus_emulator_switch(void** save, void* load);
asm(R"(
.weak nautilus_emulator_switch
nautilus_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");

inline void yield() { nautilus_emulator_switch(&current->stack_pointer, scheduler_stack); }

inline void wait_until_changed(const long& generation) {
  current->waits_on = &generation;
  current->waits_for = generation;
  yield();
}

inline void perform(const Copy& copy) {
  if (copy.is_valid) {
    memcpy(copy.target, copy.source, 16);
  } else {
    memset(copy.target, 0, 16);
  }
}
inline void finish_groups(size_t pending) {
  while (current->groups.size() > pending) {
    for (const Copy& copy : current->groups.front()) perform(copy);
    current->groups.pop_front();
  }
}

inline void thread_main() {
  body(body_arguments);
  if (!current->open_copies.empty()) fail("copies that were never committed");
  finish_groups(0);
  current->is_done = true;
  block.live--;
  if (block.live > 0 && block.arrived == block.live) {
    block.arrived = 0;
    block.generation++;
  }
  if (current->warp->arrived > 0) fail("a lane ended while others wait for it");
  current->warp->size--;
  yield();
  fail("a thread ran on after its end");
}

inline void barrier() {
  if (++block.arrived == block.live) {
    block.arrived = 0;
    block.generation++;
    return;
  }
  wait_until_changed(block.generation);
}

// All lanes of the warp meet here; the last one runs execute on what each has brought.
inline void meet(const void* site, void* arguments, void (*execute)(void** lanes)) {
  Warp& warp = *current->warp;
  if (warp.arrived == 0) {
    for (void*& lane : warp.arguments) lane = nullptr;
    warp.site = site;
  } else if (warp.site != site) {
    fail("lanes of a warp meet at different instructions");
  }
  warp.arguments[current->lane] = arguments;
  if (++warp.arrived == warp.size) {
    execute(warp.arguments);
    warp.arrived = 0;
    warp.generation++;
    return;
  }
  wait_until_changed(warp.generation);
}

inline bool run_until_blocked(Thread& thread) {
  if (thread.is_done || (thread.waits_on != nullptr && *thread.waits_on == thread.waits_for)) return false;
  thread.waits_on = nullptr;
  current = &thread;
  nautilus_emulator_switch(&scheduler_stack, thread.stack_pointer);
  current = nullptr;
  return true;
}

inline void run_block() {
  const int num_threads = static_cast<int>(block.size.x * block.size.y * block.size.z);
  const int num_warps = (num_threads + 31) / 32;
  while (static_cast<int>(stacks.size()) < num_threads) stacks.push_back(static_cast<char*>(malloc(stack_bytes)));
  block.threads.assign(num_threads, Thread{});
  block.warps.assign(num_warps, Warp{});
  block.live = num_threads;
  block.arrived = 0;
  block.generation = 0;
  for (int i = 0; i < num_threads; i++) {
    Thread& thread = block.threads[i];
    thread.index = {i % block.size.x, i / block.size.x % block.size.y, i / (block.size.x * block.size.y)};
    thread.lane = i % 32;
    thread.warp = &block.warps[i / 32];
    thread.warp->size++;
    // The stack as nautilus_emulator_switch leaves it: six registers and the address to return to.
    void** top = reinterpret_cast<void**>(stacks[i] + stack_bytes - 64);
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(&thread_main);
    for (int r = 0; r < 6; r++) *--top = nullptr;
    thread.stack_pointer = top;
  }
  while (block.live > 0) {
    bool has_moved = false;
    for (int w = 0; w < num_warps; w++) {
      const int first = (reverse_order() ? num_warps - 1 - w : w) * 32;
      // A warp runs as far as it can before the next one does.
      for (bool moves = true; moves;) {
        moves = false;
        for (int i = first; i < first + 32 && i < num_threads; i++) moves |= run_until_blocked(block.threads[i]);
        has_moved |= moves;
      }
    }
    if (!has_moved) fail("threads wait for each other for ever");
  }
}

// ---- the kernel's arguments, packed at their natural alignment ----

template <class Value>
Value take(const char*& at, const char* start) {
  const size_t offset = static_cast<size_t>(at - start);
  at = start + (offset + alignof(Value) - 1) / alignof(Value) * alignof(Value);
  Value value;
  memcpy(&value, at, sizeof(Value));
  at += sizeof(Value);
  return value;
}

template <class... Values>
struct Call {
  void (*kernel)(Values...);
  const char* parameters;
  static void run(const void* self) {
    const Call& call = *static_cast<const Call*>(self);
    const char* at = call.parameters;
    struct Invoke {
      Invoke(void (*kernel)(Values...), Values... values) { kernel(values...); }
    };
    // Braces fix the order of evaluation.
    Invoke{call.kernel, take<Values>(at, call.parameters)...};
  }
};

template <class... Values>
void launch(const char* name, void (*kernel)(Values...), const int* extents, long shared_bytes, const char* parameters) {
  const Call<Values...> call = {kernel, parameters};
  kernel_name = name;
  body = &Call<Values...>::run;
  body_arguments = &call;
  block.grid = {unsigned(extents[0]), unsigned(extents[1]), unsigned(extents[2])};
  block.size = {unsigned(extents[3]), unsigned(extents[4]), unsigned(extents[5])};
  if (shared_bytes > long(sizeof(dynamic_memory))) fail("too much shared memory");
  const auto place = [](unsigned i, unsigned size) { return reverse_order() ? size - 1 - i : i; };
  for (unsigned z = 0; z < block.grid.z; z++)
    for (unsigned y = 0; y < block.grid.y; y++)
      for (unsigned x = 0; x < block.grid.x; x++) {
        block.index = {place(x, block.grid.x), place(y, block.grid.y), place(z, block.grid.z)};
        // NaN, so that reading what nothing has written shows; what lies beyond the block's share too.
        memset(dynamic_memory, 0xff, size_t(shared_bytes) + 4096 < sizeof(dynamic_memory) ? shared_bytes + 4096 : sizeof(dynamic_memory));
        run_block();
        for (long i = shared_bytes; i < shared_bytes + 4096 && i < long(sizeof(dynamic_memory)); i++)
          if (dynamic_memory[i] != 0xff) fail("shared memory beyond the block's share was written");
      }
}

template <class Value>
struct Shuffle {
  Value value;
  int source;
};
template <class Value>
Value shuffle(Value value, int source) {
  static const char site = 0;
  Shuffle<Value> own = {value, source};
  meet(&site, &own, [](void** lanes) {
    Value results[32];
    for (int i = 0; i < 32; i++) {
      if (lanes[i] == nullptr) continue;
      const int from = static_cast<Shuffle<Value>*>(lanes[i])->source;
      if (lanes[from] == nullptr) fail("a shuffle from a lane that is not there");
      results[i] = static_cast<Shuffle<Value>*>(lanes[from])->value;
    }
    for (int i = 0; i < 32; i++)
      if (lanes[i] != nullptr) static_cast<Shuffle<Value>*>(lanes[i])->value = results[i];
  });
  return own.value;
}

}  // namespace emulator

#define threadIdx (emulator::current->index)
#define blockIdx (emulator::block.index)
#define blockDim (emulator::block.size)
#define gridDim (emulator::block.grid)

// Blocks run one after another: what one has stored, the next one sees.
inline void __threadfence() {}
inline void __syncthreads() { emulator::barrier(); }
inline void __syncwarp() {
  static const char site = 0;
  emulator::meet(&site, nullptr, [](void**) {});
}
template <class Value>
Value __shfl_xor_sync(unsigned, Value value, int mask) {
  return emulator::shuffle(value, emulator::current->lane ^ mask);
}
template <class Value>
Value __shfl_up_sync(unsigned, Value value, int delta) {
  const int source = emulator::current->lane - delta;
  return emulator::shuffle(value, source < 0 ? emulator::current->lane : source);
}
template <class Value>
Value __shfl_sync(unsigned, Value value, int source) {
  return emulator::shuffle(value, source & 31);
}
inline unsigned __ballot_sync(unsigned, bool predicate) {
  unsigned bits = 0;
  for (int i = 0; i < 32; i++) bits |= unsigned(emulator::shuffle(int(predicate), i)) << i;
  return bits;
}
inline bool __any_sync(unsigned mask, bool predicate) { return __ballot_sync(mask, predicate) != 0; }

inline unsigned __float_as_uint(float x) { unsigned y; memcpy(&y, &x, 4); return y; }
inline float __uint_as_float(unsigned x) { float y; memcpy(&y, &x, 4); return y; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __double2float_rz(double x) {
  const float y = static_cast<float>(x);
  return std::fabs(static_cast<double>(y)) > std::fabs(x) ? std::nextafter(y, 0.0f) : y;
}
inline unsigned long long __float2ull_rn(float x) { return static_cast<unsigned long long>(std::llrint(x)); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>((static_cast<unsigned __int128>(a) * b) >> 64);
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(unsigned x) { return __builtin_ffs(static_cast<int>(x)); }
template <class Value>
Value __ldcg(const Value* address) {
  return *address;
}
inline float cospif(float x) { return static_cast<float>(std::cos(M_PI * x)); }
inline float sinpif(float x) { return static_cast<float>(std::sin(M_PI * x)); }
inline int atomicAdd(int* address, int value) { const int old = *address; *address += value; return old; }
inline unsigned atomicAdd(unsigned* address, unsigned value) { const unsigned old = *address; *address += value; return old; }
inline int atomicCAS(int* address, int expected, int value) {
  const int old = *address;
  if (old == expected) *address = value;
  return old;
}
using std::isfinite;
