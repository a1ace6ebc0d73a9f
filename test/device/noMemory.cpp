/* Runs a kernel whose threads all find no memory: exits with 0 where it says so. Its caller has made it with a race detector. */
#include <cerrno>

#include "common.h"

extern "C" int64_t nt_execute(const int64_t* program, int64_t num_commands, int32_t num_threads);

/* What the runtime calls for memory here. */
extern "C" int no_memory(void**, size_t, size_t) noexcept { return ENOMEM; }

int main() {
  constexpr int num_threads = 4;
  float logits[num_threads] = {}, penalties[num_threads] = {};
  int32_t history[num_threads] = {}, lengths[num_threads] = {};
  struct {
    int64_t op = NT_OP_INDEX_apply_penalties, num_slots = sizeof(nt_apply_penalties_args) / 8;
    nt_apply_penalties_args args = {};
  } command;
  command.args.logits = {logits, nt::f32};
  command.args.history = {history, nt::i32};
  command.args.history_lengths = {lengths, nt::i32};
  command.args.repetition = command.args.presence = command.args.frequency = {penalties, nt::f32};
  command.args.num_rows = num_threads;
  command.args.vocab_size = command.args.max_history = 1;
  /* Again and again: a loop that is over before the workers are awake is the caller's alone. */
  for (int time = 0; time < 2000; time++)
    if (nt_execute(&command.op, 1, num_threads) != nt::out_of_memory) return 1;
  return 0;
}
