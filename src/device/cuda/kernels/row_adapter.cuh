// Which rows of a batch share an adapter: what both products of row_adapter_down.cu and row_adapter_up.cu begin with. Rows of a group are read
// for by one block, that of the first; what a row gets does not hang on its group.
#pragma once

constexpr int window = 256;

// At most ROWS rows of one window that take the same slot; `count` is 0 where the row has no adapter, or is in another's group.
struct Group {
  int slot, count;
  // Lane i of every warp has the number of row i.
  int own_row;
  __device__ __forceinline__ int row(int i) const { return ROWS == 1 ? own_row : __shfl_sync(full_mask, own_row, i); }
};

// The group that begins with `row`: every ROWS-th of the window's rows with its slot leads one.
__device__ __forceinline__ Group group_of(const int32_t* slots, int num_rows, int row) {
  const int slot = slots[row];
  Group group = {slot, slot >= 0, row};
  if constexpr (ROWS > 1) {
    constexpr int chunks = window / 32;
    const int lane = threadIdx.x & 31, start = row / window * window;
    int others[chunks];
#pragma unroll
    for (int c = 0; c < chunks; c++) {
      const int other = start + 32 * c + lane;
      others[c] = other < num_rows ? slots[other] : -1;
    }
    int num_before = 0;
    group.count = 0;
#pragma unroll
    for (int c = 0; c < chunks; c++) {
      const int begin = row - start - 32 * c;
      const unsigned equal = __ballot_sync(full_mask, slot >= 0 && others[c] == slot);
      const unsigned before = begin <= 0 ? 0u : begin >= 32 ? full_mask : (1u << begin) - 1;
      num_before += __popc(equal & before);
      for (unsigned rest = equal & ~before; rest != 0 && group.count < ROWS; rest &= rest - 1) {
        if (lane == group.count) group.own_row = start + 32 * c + __ffs(rest) - 1;
        group.count++;
      }
    }
    if (num_before % ROWS != 0) group.count = 0;
  }
  return group;
}

// For blocks that have nothing to do: the kernel must not end before its predecessor, whose end is taken for that of all before it.
__device__ __forceinline__ void end_idle_block() {
  if (blockIdx.x == 0) wait_for_previous_kernel();
}
