// Kernels for launch.test.ts: what launches can do beyond a plain grid.

struct Table {
  int32_t values[24];
};

// Every kind of parameter, written back as doubles.
extern "C" __global__ void echo(double* out, int32_t a, float b, int64_t c, double d, const __grid_constant__ Table table, int32_t e) {
  out[0] = a;
  out[1] = b;
  out[2] = static_cast<double>(c);
  out[3] = d;
  out[4] = table.values[0] + table.values[23];
  out[5] = e;
}

// Fills dynamic shared memory and adds it up.
extern "C" __global__ void sum_shared(int32_t* out, int32_t count) {
  extern __shared__ int32_t shared[];
  for (int32_t i = threadIdx.x; i < count; i += blockDim.x) shared[i] = i;
  __syncthreads();
  if (threadIdx.x == 0) {
    int32_t sum = 0;
    for (int32_t i = 0; i < count; i++) sum += shared[i] & 15;
    *out = sum;
  }
}

// The number of blocks in the block's cluster.
extern "C" __global__ void cluster_size(int32_t* out) {
  uint32_t size;
  asm("mov.u32 %0, %%cluster_nctaid.x;" : "=r"(size));
  if (threadIdx.x == 0) out[blockIdx.x] = size;
}

// out[i] += in[i] + 1, safe to overlap the previous kernel.
extern "C" __global__ void chained(const int32_t* in, int32_t* out, int32_t count) {
  allow_next_kernel();
  wait_for_previous_kernel();
  const int32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) out[i] += in[i] + 1;
}
