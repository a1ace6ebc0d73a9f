// Where packed sequences lie, in the form that cuDNN takes: lengths, and for each tensor the element at which each sequence starts.
// starts (5, numSequences + 1): q, k, v, o by their row strides, logSumExp by rows. cuSeqLens null: every length is `length`, and
// starts is left alone.

extern "C" __global__ void __launch_bounds__(256)
    sequence_layout(const int32_t* __restrict__ cu_seq_lens, int32_t* __restrict__ lengths, int64_t* __restrict__ starts,
                    int64_t q_stride, int64_t k_stride, int64_t v_stride, int64_t o_stride, int num_sequences, int length) {
  const int i = blockIdx.x * 256 + threadIdx.x;
  if (i > num_sequences) return;
  if (cu_seq_lens == nullptr) {
    if (i < num_sequences) lengths[i] = length;
    return;
  }
  const int64_t start = cu_seq_lens[i];
  if (i < num_sequences) lengths[i] = cu_seq_lens[i + 1] - cu_seq_lens[i];
  const int64_t strides[5] = {q_stride, k_stride, v_stride, o_stride, 1};
  for (int tensor = 0; tensor < 5; tensor++) starts[tensor * (num_sequences + 1ll) + i] = start * strides[tensor];
}
