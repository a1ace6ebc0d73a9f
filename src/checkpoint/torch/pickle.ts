/**
 * A restricted reader of Python pickles, protocols 0 to 5 (opcodes: CPython's Lib/pickletools.py). It builds plain values and the
 * few named things its caller lists; it has no way to call anything else, and any other name or opcode is refused by its name.
 *
 * Python's values become: None null, int number (bigint beyond 2^53), float number, str string, bytes Uint8Array, list and tuple
 * arrays, dict Map, set Set. Objects of listed classes become what the caller's builder gives, usually a PickleRecord.
 */
import { PickleMachine } from "./pickleMachine.ts";
import { pickleOpcodes, refusedOpcodes, stopCode } from "./pickleOpcodes.ts";
import type { PickleRules } from "./pickleValues.ts";
import type { ByteCursor } from "../cursor.ts";

/** Reads one pickle and leaves the input after its end. Throws CheckpointError. */
export function readPickle(input: ByteCursor, rules: PickleRules): unknown {
  const machine = new PickleMachine(input, rules);
  for (;;) {
    const code = input.u8();
    if (code === stopCode) return machine.pop();
    const opcode = pickleOpcodes.get(code);
    if (opcode !== undefined) {
      opcode(machine);
      continue;
    }
    const name = refusedOpcodes.get(code);
    if (name === undefined) throw machine.broken(`an unknown opcode 0x${code.toString(16)}`);
    throw machine.refused(`the opcode ${name}`);
  }
}
