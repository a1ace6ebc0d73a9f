/** A thread that reads pieces of files: takes the next ticket, waits until it is posted, fills its slot, says so, until it is stopped. */
import { readSync } from "node:fs";
import { workerData } from "node:worker_threads";
import { viewMemory } from "../ffi.ts";
import { controlOffset, stopped, type ReaderData } from "./fileReaderProtocol.ts";

/** Whether all bytes are there; what went wrong otherwise is found by whoever reads the tensor again. */
function fill(into: Uint8Array, descriptor: number, position: number): boolean {
  try {
    for (let done = 0; done < into.byteLength;) {
      const numRead = readSync(descriptor, into, done, into.byteLength - done, position + done);
      if (numRead === 0) return false;
      done += numRead;
    }
    return true;
  } catch {
    return false;
  }
}

function serve({
  control,
  turns: sharedTurns,
  pieces: sharedPieces,
  addresses,
  slotBytes,
}: ReaderData): void {
  const words = new Int32Array(control);
  const turns = new Int32Array(sharedTurns);
  const pieces = new Float64Array(sharedPieces);
  const slots = addresses.map((address) => new Uint8Array(viewMemory(address, slotBytes)));
  Atomics.add(words, controlOffset.numReady, 1);
  Atomics.notify(words, controlOffset.numReady);
  for (;;) {
    const ticket = Atomics.add(words, controlOffset.nextTicket, 1);
    const slot = ticket % slots.length;
    for (;;) {
      const turn = Atomics.load(turns, slot);
      if (turn === stopped) return;
      if (turn === 2 * ticket + 1) break;
      Atomics.wait(turns, slot, turn);
    }
    const [descriptor, position, byteLength] = pieces.subarray(4 * slot, 4 * slot + 3);
    const isWhole = fill(slots[slot].subarray(0, byteLength), descriptor, position);
    pieces[4 * slot + 3] = isWhole ? 1 : 0;
    Atomics.store(turns, slot, 2 * ticket + 2);
    Atomics.notify(turns, slot);
  }
}

serve(workerData as ReaderData);
