// What cuBLASLt leaves over of a matrix product: c = beta * c + bias, for an empty inner dimension and for a bias whose dtype the
// library does not add by itself. c (m, n) with row stride ldc; bias (n) or null. T is the type of c, Bias that of bias.

extern "C" __global__ void __launch_bounds__(256)
    finish_product(T* __restrict__ c, const Bias* __restrict__ bias, int64_t n, int64_t ldc, float beta) {
  T* row = c + blockIdx.y * ldc;
  for (int64_t column = blockIdx.x * 256ll + threadIdx.x; column < n; column += gridDim.x * 256ll) {
    const float kept = beta == 0.0f ? 0.0f : beta * to_float(row[column]);
    row[column] = from_float<T>(kept + (bias == nullptr ? 0.0f : to_float(bias[column])));
  }
}

// c = product + beta * c + bias, rounded once: product f32 (m, n) contiguous, the rest as above.
extern "C" __global__ void __launch_bounds__(256)
    add_product(const float* __restrict__ product, T* __restrict__ c, const Bias* __restrict__ bias, int64_t n, int64_t ldc,
                float beta) {
  const float* from = product + blockIdx.y * n;
  T* row = c + blockIdx.y * ldc;
  for (int64_t column = blockIdx.x * 256ll + threadIdx.x; column < n; column += gridDim.x * 256ll) {
    const float added = from[column] + beta * to_float(row[column]);
    row[column] = from_float<T>(added + (bias == nullptr ? 0.0f : to_float(bias[column])));
  }
}
