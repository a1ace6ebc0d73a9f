// c = sums * aScales * bScales + bias for the f32 sums of a product of codes, some rows of it. T is the type of c.

extern "C" __global__ void __launch_bounds__(256)
    scale_product(const float* __restrict__ sums, const float* __restrict__ a_scales, const float* __restrict__ b_scales,
                  const void* __restrict__ bias, T* __restrict__ c, int64_t n, int64_t c_row_stride, int bias_is_bf16) {
  const int64_t row = blockIdx.y, column = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
  if (column >= n) return;
  const float shift = bias == nullptr ? 0.0f : load_any(bias, bias_is_bf16 != 0, column);
  c[row * c_row_stride + column] = from_float<T>(sums[row * n + column] * a_scales[row] * b_scales[column] + shift);
}
