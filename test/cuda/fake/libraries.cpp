// A driver, a compiler and a library of products without a GPU, for tests of what is said on bad machines: host memory stands for the
// card's, kernels and products do nothing. FAKE_CUDA names calls that fail, "cuCtxSetCurrent=46 cuLaunchKernel=719@200": with what
// status, and from which call on. FAKE_VERSION, FAKE_CAPABILITY and FAKE_FREE_BYTES are the driver's version, the card's compute
// capability (90 is 9.0) and its free memory. What stands not here follows as stubs, generated from the bindings' tables (libraries.ts).
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sys/mman.h>

static long long setting(const char* name, long long otherwise) {
  const char* text = getenv(name);
  return text == nullptr || *text == 0 ? otherwise : atoll(text);
}

/// The status that a call is to give now: 0, or what FAKE_CUDA says.
static int status_of(const char* call, int& calls) {
  calls++;
  const char* rules = getenv("FAKE_CUDA");
  const size_t length = strlen(call);
  for (const char* at = rules; at != nullptr && (at = strstr(at, call)) != nullptr; at += length) {
    if ((at != rules && at[-1] != ' ') || at[length] != '=') continue;
    int status = 0, first = 1;
    sscanf(at + length + 1, "%d@%d", &status, &first);
    return calls >= first ? status : 0;
  }
  return 0;
}

#define CALL(name, parameters, body)            \
  static int number_of_##name = 0;              \
  extern "C" int calls_of_##name() { return number_of_##name; } \
  extern "C" int name parameters {              \
    if (int status = status_of(#name, number_of_##name)) return status; \
    body;                                       \
    return 0;                                   \
  }

static const long long total_bytes = 4ll << 30;
static long long used_bytes = 0;
static long long free_bytes() { return setting("FAKE_FREE_BYTES", total_bytes) - used_bytes; }
static int64_t next_handle = 1000;
static std::map<void*, size_t> registered;

static int attribute(int which) {
  const int capability = setting("FAKE_CAPABILITY", 90);
  switch (which) {
    case 16: return 4;
    case 38: return 1 << 20;
    case 39: return 2048;
    case 75: return capability / 10;
    case 76: return capability % 10;
    case 97: return 227 * 1024;
    default: return 1;
  }
}

CALL(cuDriverGetVersion, (int* out), *out = setting("FAKE_VERSION", 13000))
CALL(cuDeviceGetCount, (int* out), *out = 1)
CALL(cuDeviceGetName, (char* out, int length, int), snprintf(out, length, "Fake GPU"))
CALL(cuDeviceTotalMem_v2, (int64_t* out, int), *out = total_bytes)
CALL(cuDeviceGetAttribute, (int* out, int which, int), *out = attribute(which))
CALL(cuDevicePrimaryCtxRetain, (int64_t* out, int), *out = 1)
CALL(cuStreamCreate, (int64_t* out, unsigned), *out = next_handle++)
CALL(cuEventCreate, (int64_t* out, unsigned), *out = next_handle++)
CALL(cuEventElapsedTime, (float* out, void*, void*), *out = 1.0f)
CALL(cuMemGetInfo_v2, (int64_t* available, int64_t* total), *available = free_bytes(); *total = total_bytes)
CALL(cuMemHostAlloc, (void** out, size_t bytes, unsigned), *out = calloc(bytes, 1))
CALL(cuMemFreeHost, (void* memory), free(memory))
CALL(cuMemHostRegister_v2, (void* memory, size_t bytes, unsigned),
     if (!registered.emplace(memory, bytes).second) return 712)
CALL(cuMemHostUnregister, (void* memory), if (registered.erase(memory) == 0) return 713)
/// How many ranges are registered and not unregistered yet.
extern "C" int fake_num_registered() { return (int)registered.size(); }
CALL(cuMemAddressReserve, (void** out, size_t bytes, size_t, void*, uint64_t),
     *out = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
     if (*out == MAP_FAILED) return 2)
CALL(cuMemAddressFree, (void* memory, size_t bytes), munmap(memory, bytes))
CALL(cuMemGetAllocationGranularity, (int64_t* out, void*, int), *out = 2 << 20)
CALL(cuMemCreate, (int64_t* out, size_t bytes, void*, uint64_t),
     if ((long long)bytes > free_bytes()) return 2;
     used_bytes += bytes; *out = next_handle++)
CALL(cuMemcpyHtoDAsync_v2, (void* to, const void* from, size_t bytes, void*), memcpy(to, from, bytes))
CALL(cuMemcpyDtoHAsync_v2, (void* to, const void* from, size_t bytes, void*), memcpy(to, from, bytes))
CALL(cuMemcpyDtoDAsync_v2, (void* to, const void* from, size_t bytes, void*), memcpy(to, from, bytes))
CALL(cuMemsetD8Async, (void* to, int byte, size_t bytes, void*), memset(to, byte, bytes))
CALL(cuModuleLoadData, (int64_t* out, const void*), *out = next_handle++)
CALL(cuModuleGetFunction, (int64_t* out, void*, const char*), *out = next_handle++)

CALL(nvrtcVersion, (int* major, int* minor), *major = 13; *minor = 0)
CALL(nvrtcGetNumSupportedArchs, (int* out), *out = 2)
CALL(nvrtcGetSupportedArchs, (int* out), out[0] = 80; out[1] = 90)
CALL(nvrtcCreateProgram, (int64_t* out, const char*, const char*, int, const void*, const void*), *out = next_handle++)
CALL(nvrtcGetCUBINSize, (void*, int64_t* out), *out = 8)
CALL(nvrtcGetCUBIN, (void*, char* out), memcpy(out, "machine", 8))
CALL(nvrtcGetProgramLogSize, (void*, int64_t* out), *out = 1)
CALL(nvrtcGetProgramLog, (void*, char* out), *out = 0)

extern "C" uint64_t cublasLtGetVersion() { return 130000; }
CALL(cublasLtCreate, (int64_t* out), *out = next_handle++)
CALL(cublasLtMatrixLayoutCreate, (int64_t* out, int, uint64_t, uint64_t, int64_t), *out = next_handle++)
CALL(cublasLtMatmulDescCreate, (int64_t* out, int, int), *out = next_handle++)
CALL(cublasLtMatmulPreferenceCreate, (int64_t* out), *out = next_handle++)
CALL(cublasLtMatmulAlgoGetHeuristic,
     (void*, void*, void*, void*, void*, void*, void*, int, char* results, int* count),
     memset(results, 0, 96); *count = 1)
