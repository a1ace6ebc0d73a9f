// Tiles of bf16 rows in shared memory for the tensor-core attention kernels: asynchronous loading, fragments, and the block's view of
// its sequence. A tile's 16-byte pieces are swizzled (piece p of row r lies at p xor (r mod 8)), so that the eight rows that a matrix
// load touches lie in different banks. Head sizes below HEAD_DIM are padded with zeros. Source: Dao, "FlashAttention-2", 2023.
#pragma once

constexpr int pieces_per_row = HEAD_DIM / 8;
constexpr int row_bytes = HEAD_DIM * 2;
static_assert(HEAD_DIM % 64 == 0, "the swizzle works on groups of eight pieces");

__device__ __forceinline__ SharedAddress piece_at(SharedAddress tile, int row, int piece) {
  return tile + row * row_bytes + ((piece ^ (row & 7)) << 4);
}

__device__ __forceinline__ bf16* piece_in(bf16* tile, int row, int piece) {
  return tile + row * HEAD_DIM + ((piece ^ (row & 7)) << 3);
}

// Starts loading `rows` rows of one head; row_address(row) gives a row's first element. Rows from num_valid on and pieces beyond
// head_dim become zeros.
template <int rows, int threads, class RowAddress>
__device__ __forceinline__ void load_tile(SharedAddress tile, int num_valid, int head_dim, RowAddress row_address) {
  static_assert(rows * pieces_per_row % threads == 0, "whole turns of the block");
#pragma unroll
  for (int i = 0; i < rows * pieces_per_row / threads; i++) {
    const int at = i * threads + threadIdx.x;
    const int row = at / pieces_per_row, piece = at % pieces_per_row;
    const bool is_valid = row < num_valid && piece * 8 < head_dim;
    // An address that exists, for pieces that are not read.
    const bf16* source = row_address(row < num_valid ? row : 0) + (is_valid ? piece * 8 : 0);
    copy_16_async(piece_at(tile, row, piece), source, is_valid);
  }
}

// ---- fragments ----
// A lane's address for matrix loads of 16 rows by 16 columns is that of rows 0 .. 15 and columns 0 .. 15 of a tile; `fragment` moves it
// to a row (a multiple of 8) and to columns 16 * step. Two bits of the step meet the swizzle, the rest is a plain offset.

__device__ __forceinline__ SharedAddress fragment(SharedAddress lane_address, int row, int step) {
  return (lane_address ^ ((step & 3) << 5)) + ((step >> 2) << 7) + row * row_bytes;
}
// For the tall operand, and for the wide one from rows that are its rows.
__device__ __forceinline__ SharedAddress lane_address(SharedAddress tile) {
  const int lane = threadIdx.x & 31;
  return piece_at(tile, lane & 15, lane >> 4);
}
// For the wide operand from rows that are its columns (a transposed product).
__device__ __forceinline__ SharedAddress lane_address_transposed(SharedAddress tile) {
  const int lane = threadIdx.x & 31;
  return piece_at(tile, (lane & 7) + ((lane >> 4) << 3), (lane >> 3) & 1);
}

// Results of two neighbouring products (16 x 8 each) as the tall operand of the next one.
__device__ __forceinline__ void as_tall(uint32_t (&a)[4], const float (&left)[4], const float (&right)[4]) {
  a[0] = bf16x2_bits(left[0], left[1]);
  a[1] = bf16x2_bits(left[2], left[3]);
  a[2] = bf16x2_bits(right[0], right[1]);
  a[3] = bf16x2_bits(right[2], right[3]);
}

// Stores 16 rows of results (16 x 8 each, of HEAD_DIM / 8 products) through the warp's own 16 rows of a tile that is no longer read;
// row_address(row) is null for rows that do not exist.
template <int products, class RowAddress>
__device__ __forceinline__ void store_rows(bf16* tile, int first_row, const float (&results)[products][4], int head_dim,
                                           int first_piece, RowAddress row_address) {
  const int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
#pragma unroll
  for (int n = 0; n < products; n++) {
    *reinterpret_cast<uint32_t*>(piece_in(tile, first_row + g, first_piece + n) + 2 * t) = bf16x2_bits(results[n][0], results[n][1]);
    *reinterpret_cast<uint32_t*>(piece_in(tile, first_row + g + 8, first_piece + n) + 2 * t) =
        bf16x2_bits(results[n][2], results[n][3]);
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 16 * products / 32; i++) {
    const int at = i * 32 + lane;
    const int row = at / products, piece = first_piece + at % products;
    bf16* target = row_address(first_row + row);
    if (target != nullptr && piece * 8 < head_dim)
      *reinterpret_cast<uint4*>(target + piece * 8) = *reinterpret_cast<const uint4*>(piece_in(tile, first_row + row, piece));
  }
}

// Reductions over the four lanes that hold a row of results.
__device__ __forceinline__ float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(full_mask, x, 1));
  return fmaxf(x, __shfl_xor_sync(full_mask, x, 2));
}
__device__ __forceinline__ float row_sum(float x) {
  x += __shfl_xor_sync(full_mask, x, 1);
  return x + __shfl_xor_sync(full_mask, x, 2);
}

// One sequence: its first query and key rows and how many there are.
struct Segment {
  int64_t query_start;
  int64_t key_start;
  int query_length;
  int key_length;
};

__device__ __forceinline__ Segment segment_of(int sequence, const int32_t* cu_seq_lens, int query_length, int key_length) {
  if (cu_seq_lens == nullptr)
    return {int64_t(sequence) * query_length, int64_t(sequence) * key_length, query_length, key_length};
  const int start = cu_seq_lens[sequence], length = cu_seq_lens[sequence + 1] - start;
  return {start, start, length, length};
}
