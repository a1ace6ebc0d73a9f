/*
 * The native half of the CPU backend: aligned memory, mapped files, the persistent thread pool, and the interpreter of command lists.
 *
 * A program is a sequence of [opIndex, numSlots, slots...] in 64-bit words. One program runs at a time in a process: callers
 * on several JavaScript threads share the pool and wait for each other. Workers spin for a few tens of microseconds, so
 * that the next loop of a program finds them awake, and then sleep.
 */
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#define NT_HAS_MAPPINGS 1
#endif

#define NT_WEAK_OPS 1
#include "common.h"

#define NT_EXPORT extern "C" __attribute__((visibility("default")))

namespace nt {
namespace {

constexpr int max_threads = 1024;
constexpr int num_shared_slots = 8;
/* About 40 us at 2-4 GHz: longer than the gap between two commands, shorter than anything a person or another process notices. */
constexpr int num_spins = 1500;

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

inline void yield_processor() {
#if defined(__unix__) || defined(__APPLE__)
  sched_yield();
#else
  std::this_thread::yield();
#endif
}

struct Memory {
  void* address = nullptr;
  int64_t bytes = 0;

  void* grow(int64_t wanted) {
    if (wanted <= bytes) return address;
    const int64_t rounded = round_up(wanted + wanted / 4, 4096);
    std::free(address);
    bytes = 0;
    if (posix_memalign(&address, 4096, static_cast<size_t>(rounded)) != 0) return address = nullptr;
#if defined(MADV_HUGEPAGE)
    if (rounded >= 1 << 21) madvise(address, static_cast<size_t>(rounded), MADV_HUGEPAGE);
#endif
    bytes = rounded;
    return address;
  }
};

/* The last generation in which a part was taken. A worker takes its own; the caller, when done, takes what no worker has begun:
 * a sleeping or crowded-out worker costs nothing. */
struct alignas(64) Claim {
  std::atomic<uint64_t> generation{0};

  bool take(uint64_t wanted) {
    uint64_t last = generation.load(std::memory_order_relaxed);
    return last < wanted && generation.compare_exchange_strong(last, wanted, std::memory_order_acq_rel);
  }
};

struct Pool {
  std::mutex execution;
  /* Generation in the high bits, the number of parts in the low 16: one word, so that a late worker never pairs the task
   * of one generation with the size of another. */
  std::atomic<uint64_t> signal{0};
  std::atomic<int> num_pending{0};
  Claim claims[max_threads];
  std::atomic<int> num_sleeping{0};
  std::mutex sleep_mutex;
  std::condition_variable wake;
  void (*body)(void*, int) = nullptr;
  void* context = nullptr;
  int num_workers = 0;
  int num_threads = 1;
  Memory thread_scratch[max_threads];
  Memory shared[num_shared_slots];
};

/* Leaked on purpose: workers may still look at it while the process exits. */
Pool& pool() {
  static Pool* const instance = new Pool;
  return *instance;
}

thread_local int current_thread = 0;
thread_local bool is_inside_loop = false;

void work(int index, uint64_t seen) {
  Pool& p = pool();
  current_thread = index;
  is_inside_loop = true;
  for (;;) {
    uint64_t signal = p.signal.load(std::memory_order_acquire);
    for (int i = 0; signal == seen && i < num_spins; i++) {
      pause();
      signal = p.signal.load(std::memory_order_acquire);
    }
    if (signal == seen) {
      std::unique_lock<std::mutex> lock(p.sleep_mutex);
      p.num_sleeping.fetch_add(1);
      p.wake.wait(lock, [&] { return (signal = p.signal.load()) != seen; });
      p.num_sleeping.fetch_sub(1);
    }
    seen = signal;
    if (index >= static_cast<int>(signal & 0xffff) || !p.claims[index].take(signal >> 16)) continue;
    p.body(p.context, index);
    p.num_pending.fetch_sub(1, std::memory_order_release);
  }
}

void set_threads(int wanted) {
  Pool& p = pool();
  wanted = max(1, min(wanted, max_threads));
  while (p.num_workers < wanted - 1) {
    try {
      std::thread(work, p.num_workers + 1, p.signal.load()).detach();
    } catch (...) {
      break; /* the system gives no more threads: go on with those there are */
    }
    p.num_workers++;
  }
  p.num_threads = min(wanted, p.num_workers + 1);
}

}  // namespace

int num_threads() { return is_inside_loop ? 1 : pool().num_threads; }
int thread_index() { return current_thread; }

void run_parts(int num_parts, void (*body)(void*, int), void* context) {
  Pool& p = pool();
  p.body = body;
  p.context = context;
  p.num_pending.store(num_parts - 1, std::memory_order_relaxed);
  const uint64_t generation = (p.signal.load(std::memory_order_relaxed) >> 16) + 1;
  p.signal.store(generation << 16 | static_cast<uint64_t>(num_parts));
  if (p.num_sleeping.load() > 0) {
    /* A worker between its last look and its wait holds the mutex: taking it makes sure that the wake-up is not lost. */
    std::lock_guard<std::mutex> lock(p.sleep_mutex);
    p.wake.notify_all();
  }
  is_inside_loop = true;
  body(context, 0);
  for (int part = 1; part < num_parts; part++) {
    if (!p.claims[part].take(generation)) continue;
    current_thread = part;
    body(context, part);
    p.num_pending.fetch_sub(1, std::memory_order_relaxed);
  }
  current_thread = 0;
  is_inside_loop = false;
  for (int i = 0; p.num_pending.load(std::memory_order_acquire) != 0; i++) {
    if (i < num_spins) pause();
    else yield_processor();
  }
}

void* scratch(int thread, int64_t bytes) { return pool().thread_scratch[thread].grow(bytes); }
void* shared_scratch(int slot, int64_t bytes) { return pool().shared[slot].grow(bytes); }

}  // namespace nt

using nt_entry = int32_t (*)(const int64_t*);

/* Operators without a kernel file are null here: the declarations of nt_ops.h are weak in this file. */
static const nt_entry entries[NT_NUM_OPS] = {
#define NT_ENTRY(name) nt_##name,
    NT_FOR_EACH_OP(NT_ENTRY)
#undef NT_ENTRY
};

/* The pseudo-operator after the last one: copy `slots[2]` bytes from address slots[1] to slots[0]. */
static int32_t copy_bytes(const int64_t* slots) {
  char* target = reinterpret_cast<char*>(slots[0]);
  const char* source = reinterpret_cast<const char*>(slots[1]);
  nt::parallel_for(slots[2], 1 << 20, [&](int64_t begin, int64_t end, int) {
    std::memcpy(target + begin, source + begin, static_cast<size_t>(end - begin));
  });
  return nt::ok;
}

/* Runs a program. Gives 0, or status + 256 * index of the command that failed; the commands after it are not run. */
NT_EXPORT int64_t nt_execute(const int64_t* program, int64_t num_commands, int32_t num_threads) {
  std::lock_guard<std::mutex> lock(nt::pool().execution);
  nt::set_threads(num_threads);
  for (int64_t index = 0; index < num_commands; index++) {
    const int64_t op = program[0];
    const nt_entry entry = op == NT_NUM_OPS ? copy_bytes : op >= 0 && op < NT_NUM_OPS ? entries[op] : nullptr;
    const int32_t status = entry == nullptr ? nt::missing : entry(program + 2);
    if (status != nt::ok) return status + 256 * index;
    program += 2 + program[1];
  }
  return 0;
}

/* Whether operator `op` has an entry point. */
NT_EXPORT int32_t nt_has_op(int32_t op) { return op >= 0 && op < NT_NUM_OPS && entries[op] != nullptr; }

/* Memory aligned to 256 bytes, large blocks to 2 MiB on huge pages where the system has them. 0: no room. */
NT_EXPORT int64_t nt_alloc(int64_t bytes) {
  constexpr int64_t huge_page = 1 << 21;
  const bool is_large = bytes >= huge_page;
  void* address = nullptr;
  if (posix_memalign(&address, is_large ? huge_page : 256, static_cast<size_t>(bytes)) != 0) return 0;
#if defined(MADV_HUGEPAGE)
  if (is_large) madvise(address, static_cast<size_t>(bytes), MADV_HUGEPAGE);
#endif
  return reinterpret_cast<int64_t>(address);
}

NT_EXPORT void nt_free(int64_t address) { std::free(reinterpret_cast<void*>(address)); }

#if defined(NT_HAS_MAPPINGS)
/* The start of the page that `value` lies in. */
static int64_t page_start(int64_t value) { return value - value % static_cast<int64_t>(sysconf(_SC_PAGESIZE)); }

/* Advice on what of a mapping lies between two addresses; whether the system took it. */
static bool advise(int64_t begin, int64_t end, int advice) {
  const int64_t start = page_start(begin);
  return madvise(reinterpret_cast<void*>(start), static_cast<size_t>(end - start), advice) == 0;
}

/* Reads a part of a mapping and enters its pages into the process's table; false where there is no mapping any more. */
static bool fetch_part(int64_t begin, int64_t end) {
#if defined(MADV_POPULATE_READ)
  if (advise(begin, end, MADV_POPULATE_READ)) return true;
  if (errno != EINVAL) return false; /* else a system from before Linux 5.14 */
#endif
  return advise(begin, end, MADV_WILLNEED);
}
#endif

/*
 * Bytes of an open file as memory that is read page by page when it is used, shared with all who map or read the file, and cannot be
 * written. The descriptor may be closed. 0: the system has no such thing, refuses, or the file is shorter.
 */
NT_EXPORT int64_t nt_map(int32_t descriptor, int64_t position, int64_t bytes) {
#if defined(NT_HAS_MAPPINGS)
  struct stat status;
  if (bytes <= 0 || fstat(descriptor, &status) != 0 || status.st_size - position < bytes) return 0;
  const int64_t start = page_start(position), before = position - start;
  void* address = mmap(nullptr, static_cast<size_t>(before + bytes), PROT_READ, MAP_SHARED, descriptor, start);
  return address == MAP_FAILED ? 0 : reinterpret_cast<int64_t>(address) + before;
#else
  (void)descriptor, (void)position, (void)bytes;
  return 0;
#endif
}

/*
 * Begins to read parts of mappings, `ranges` being pairs of address and bytes, in order and on a thread of its own, into huge pages where the
 * system has them for files. A mapping may end meanwhile: reading changes nothing of what lies there then.
 */
NT_EXPORT void nt_fetch(const int64_t* ranges, int64_t num_ranges) {
#if defined(NT_HAS_MAPPINGS)
  /* The table is locked for the length of a call: no longer than others can wait. */
  constexpr int64_t part_bytes = 1 << 26;
#if defined(MADV_HUGEPAGE)
  for (int64_t i = 0; i < num_ranges; i++) advise(ranges[2 * i], ranges[2 * i] + ranges[2 * i + 1], MADV_HUGEPAGE);
#endif
  try {
    std::thread([wanted = std::vector<int64_t>(ranges, ranges + 2 * num_ranges)] {
      for (size_t i = 0; i < wanted.size(); i += 2) {
        const int64_t end = wanted[i] + wanted[i + 1];
        for (int64_t begin = wanted[i]; begin < end; begin += part_bytes)
          if (!fetch_part(begin, nt::min(end, begin + part_bytes))) return;
      }
    }).detach();
  } catch (...) {
    /* No thread to be had: the pages come when they are used. */
  }
#else
  (void)ranges, (void)num_ranges;
#endif
}

/* Ends what nt_map gave. */
NT_EXPORT void nt_unmap(int64_t address, int64_t bytes) {
#if defined(NT_HAS_MAPPINGS)
  const int64_t start = page_start(address);
  munmap(reinterpret_cast<void*>(start), static_cast<size_t>(address - start + bytes));
#else
  (void)address, (void)bytes;
#endif
}
