/*
 * The packed matrix product, after Goto and van de Geijn, "Anatomy of high-performance matrix multiplication" (2008).
 *
 * The smaller operand is packed once for all threads; each task packs its own piece of the larger one into its thread's second-level
 * cache and runs the tiles of its block of c through all of k. So c is touched by one task only, bf16 results are
 * rounded once, and there are two barriers per block of shared columns. The cuts along k do not depend on the thread count,
 * and so neither does any result.
 */
#pragma once

#include "matmul.h"
#include "matmul_pack.h"

namespace nt::gemm {

/* Words of k per pass: what a task packs of A (112 rows: 224 KiB) stays in the second-level cache. Fewer cost more passes over c. */
constexpr int64_t words_per_pass = 512;
/* Panels that a task packs, of 112 rows or 128 columns: about a quarter of a second-level cache of 1 MiB. */
constexpr int64_t row_panels_per_task = 112 / max_rows, column_panels_per_task = 128 / max_columns;
/* Neighbouring panels of the shared operand that are packed in one sweep. */
constexpr int64_t panels_per_group = column_panels_per_task;
/* Of the operand packed for all; shared by the cores in the last-level cache. */
constexpr int64_t shared_bytes = 12 << 20;

template <class Math>
class PackedProduct {
  using Source = typename Math::Source;

 public:
  explicit PackedProduct(const Product& product)
      : p(product),
        a{static_cast<const Source*>(product.a), product.lda, !product.transpose_a},
        b{static_cast<const Source*>(product.b), product.ldb, product.transpose_b},
        num_words(ceil_div(product.k, Math::per_word)),
        num_passes(ceil_div(num_words, words_per_pass)),
        num_row_panels(ceil_div(product.m, max_rows)),
        num_column_panels(ceil_div(product.n, max_columns)),
        shares_a(product.m < product.n && product.m <= 512) {}

  int32_t run() {
    const int64_t panel_bytes = num_words * 4 * (shares_a ? max_rows : max_columns);
    const int64_t num_panels = shares_a ? num_row_panels : num_column_panels;
    const int64_t num_blocks = ceil_div(num_panels, max<int64_t>(shared_bytes / panel_bytes, 4));
    for (int64_t block = 0; block < num_blocks; block++) {
      const int64_t begin = num_panels * block / num_blocks, end = num_panels * (block + 1) / num_blocks;
      const int32_t status = run_shared(begin, end);
      if (status != ok) return status;
    }
    return ok;
  }

 private:
  const Product& p;
  const Operand<Source> a, b;
  const int64_t num_words, num_passes, num_row_panels, num_column_panels;
  const bool shares_a;
  float* shared = nullptr;
  int64_t shared_begin = 0;

  /* Row panels differ by one row at most; column panels are full but for the last. */
  int64_t row_begin(int64_t panel) const { return p.m * panel / num_row_panels; }
  int64_t column_begin(int64_t panel) const { return min(panel * max_columns, p.n); }
  /* Columns of a panel as packed: whole vectors. */
  int64_t packed_columns(int64_t panel) const {
    return round_up(min(p.n - panel * max_columns, static_cast<int64_t>(max_columns)), width);
  }
  int64_t pass_begin(int64_t pass) const { return num_words * pass / num_passes; }

  Strip row_strip(int64_t panel, float* out) const {
    const int64_t begin = row_begin(panel), rows = row_begin(panel + 1) - begin;
    return {begin, rows, rows, out};
  }
  Strip column_strip(int64_t panel, float* out) const {
    const int64_t begin = column_begin(panel), columns = column_begin(panel + 1) - begin;
    return {begin, columns, packed_columns(panel), out};
  }

  float* shared_panel(int64_t panel) const {
    return shares_a ? shared + (row_begin(panel) - row_begin(shared_begin)) * num_words
                    : shared + (panel - shared_begin) * max_columns * num_words;
  }
  int64_t shared_stride(int64_t panel) const {
    return shares_a ? row_begin(panel + 1) - row_begin(panel) : packed_columns(panel);
  }

  /* The product of the shared panels begin .. end with all of the other operand. */
  int32_t run_shared(int64_t begin, int64_t end) {
    const int64_t num_shared = end - begin;
    shared = static_cast<float*>(
        shared_scratch(0, num_shared * 4 * num_words * (shares_a ? max_rows : max_columns) + 64));
    if (shared == nullptr) return out_of_memory;
    shared_begin = begin;
    const int64_t num_groups = ceil_div(num_shared, panels_per_group);
    parallel_tasks(num_groups * num_passes, [&](int64_t task, int) {
      const int64_t group = task / num_passes, pass = task % num_passes;
      const int64_t first = begin + num_shared * group / num_groups, last = begin + num_shared * (group + 1) / num_groups;
      Strip strips[panels_per_group];
      for (int64_t panel = first; panel < last; panel++) {
        float* out = shared_panel(panel) + pass_begin(pass) * shared_stride(panel);
        strips[panel - first] = shares_a ? row_strip(panel, out) : column_strip(panel, out);
      }
      const WordRange words{pass_begin(pass), pass_begin(pass + 1), p.k};
      if (shares_a) pack<Math>(a, strips, static_cast<int>(last - first), words);
      else pack<Math>(b, strips, static_cast<int>(last - first), words);
    });

    /* Tasks: enough of them that threads end together; pieces of the shared side too where the other is short. */
    const int64_t num_own = shares_a ? num_column_panels : num_row_panels;
    const int64_t largest = shares_a ? column_panels_per_task : row_panels_per_task;
    const int64_t wanted_tasks = 8 * num_threads();
    const int64_t per_task = max<int64_t>(1, min(largest, num_own / wanted_tasks));
    const int64_t num_own_tasks = ceil_div(num_own, per_task);
    int64_t num_shared_tasks = min(num_shared, max<int64_t>(1, wanted_tasks / 2 / num_own_tasks));
    if (keeps_sums()) num_shared_tasks = max(num_shared_tasks, ceil_div(num_shared, shares_a ? 4 * row_panels_per_task : 4 * column_panels_per_task));
    bool has_failed = false;
    parallel_tasks(num_own_tasks * num_shared_tasks, [&](int64_t task, int thread) {
      const int64_t own = task / num_shared_tasks, part = task % num_shared_tasks;
      const int64_t own_begin = num_own * own / num_own_tasks, own_end = num_own * (own + 1) / num_own_tasks;
      const int64_t part_begin = begin + num_shared * part / num_shared_tasks;
      const int64_t part_end = begin + num_shared * (part + 1) / num_shared_tasks;
      const bool is_done = shares_a ? run_task({part_begin, part_end, own_begin, own_end}, thread)
                                    : run_task({own_begin, own_end, part_begin, part_end}, thread);
      if (!is_done) raise_flag(has_failed);
    });
    return has_failed ? out_of_memory : ok;
  }

  /* bf16 results over several passes: sums stay in f32 beside c until the last. */
  bool keeps_sums() const { return p.c_is_bf16 && num_passes > 1; }

  /* Row panels and column panels of one task. */
  struct Block {
    int64_t row_begin, row_end, column_begin, column_end;
  };
  struct TaskMemory {
    float* own;  /* packed panels of this pass */
    float* sums; /* one tile, or all of the block when sums are kept */
    int64_t sums_stride;
  };

  bool run_task(const Block& block, int thread) const {
    const int64_t num_rows = (block.row_end - block.row_begin) * max_rows;
    const int64_t num_columns = (block.column_end - block.column_begin) * max_columns;
    const int64_t own_words = (shares_a ? num_columns : num_rows) * words_per_pass;
    const int64_t sums_words = keeps_sums() ? num_rows * num_columns : max_rows * max_columns;
    float* memory = static_cast<float*>(scratch(thread, 4 * (own_words + sums_words) + 256));
    if (memory == nullptr) return false;
    const TaskMemory places{memory, memory + round_up(own_words, 64), keeps_sums() ? num_columns : max_columns};
    for (int64_t pass = 0; pass < num_passes; pass++) {
      pack_own(block, pass, places.own);
      /* The panel of the shared side, which comes from further away, in the outer loop. */
      if (shares_a) {
        for (int64_t row = block.row_begin; row < block.row_end; row++)
          for (int64_t column = block.column_begin; column < block.column_end; column++)
            run_tile(block, row, column, pass, places);
      } else {
        for (int64_t column = block.column_begin; column < block.column_end; column++)
          for (int64_t row = block.row_begin; row < block.row_end; row++)
            run_tile(block, row, column, pass, places);
      }
    }
    return true;
  }

  void pack_own(const Block& block, int64_t pass, float* out) const {
    const WordRange words{pass_begin(pass), pass_begin(pass + 1), p.k};
    Strip strips[max(row_panels_per_task, column_panels_per_task)];
    int num_strips = 0;
    if (shares_a) {
      for (int64_t panel = block.column_begin; panel < block.column_end; panel++) {
        strips[num_strips++] = column_strip(panel, out);
        out += max_columns * (words.last - words.first);
      }
      pack<Math>(b, strips, num_strips, words);
    } else {
      for (int64_t panel = block.row_begin; panel < block.row_end; panel++) {
        strips[num_strips] = row_strip(panel, out);
        out += strips[num_strips++].stride * (words.last - words.first);
      }
      pack<Math>(a, strips, num_strips, words);
    }
  }

  void run_tile(const Block& block, int64_t row_panel, int64_t column_panel, int64_t pass, const TaskMemory& places) const {
    static const TileTable<Math> table;
    const int64_t first = pass_begin(pass), words = pass_begin(pass + 1) - first;
    const int64_t row = row_begin(row_panel), rows = row_begin(row_panel + 1) - row;
    const int64_t column = column_begin(column_panel), columns = column_begin(column_panel + 1) - column;
    const int64_t vectors = packed_columns(column_panel) / width;
    const float* left = shares_a ? shared_panel(row_panel) + first * rows
                                 : places.own + (row - row_begin(block.row_begin)) * words;
    const float* right = shares_a ? places.own + (column_panel - block.column_begin) * max_columns * words
                                  : shared_panel(column_panel) + first * vectors * width;
    static constexpr float one = 1;
    const Tile tile = table.tiles[rows - 1][vectors - 1];
    const bool is_first = pass == 0, is_last = pass == num_passes - 1;
    const bool is_plain = !is_first || ((p.beta == 0 || p.beta == 1) && p.bias == nullptr);
    if (!p.c_is_bf16 && is_plain && columns == vectors * width) {
      float* c = static_cast<float*>(p.c) + row * p.ldc + column;
      tile(words, left, right, c, p.ldc, &p.alpha, !is_first || p.beta == 1);
    } else if (keeps_sums()) {
      float* sums = places.sums + (row - row_begin(block.row_begin)) * places.sums_stride +
                    (column_panel - block.column_begin) * max_columns;
      tile(words, left, right, sums, places.sums_stride, &one, !is_first);
      if (is_last) finish_block(p, sums, places.sums_stride, row, rows, column, columns, true);
    } else {
      tile(words, left, right, places.sums, places.sums_stride, &one, false);
      finish_block(p, places.sums, places.sums_stride, row, rows, column, columns, is_first);
    }
  }
};

}  // namespace nt::gemm
