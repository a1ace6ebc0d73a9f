/** A thread that reads pieces of files: takes the next ticket, waits until it is posted, fills its slot, says so, until it is stopped. */
import { readSync } from "node:fs";
import { workerData } from "node:worker_threads";
import { viewMemory } from "../nativeMemory.ts";
import { controlOffset, pieceWords, stopped, wholeWord, type ReaderData } from "./fileReaderProtocol.ts";

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

function serve({ control, turns: sharedTurns, pieces: sharedPieces, numSlots }: ReaderData): void {
  const words = new Int32Array(control);
  const turns = new Int32Array(sharedTurns);
  const pieces = new Float64Array(sharedPieces);
  Atomics.add(words, controlOffset.numReady, 1);
  Atomics.notify(words, controlOffset.numReady);
  for (;;) {
    const ticket = Atomics.add(words, controlOffset.nextTicket, 1);
    const slot = ticket % numSlots;
    for (;;) {
      const turn = Atomics.load(turns, slot);
      if (turn === stopped) return;
      if (turn === 2 * ticket + 1) break;
      Atomics.wait(turns, slot, turn);
    }
    const at = pieceWords * slot;
    const [descriptor, position, byteLength, address] = pieces.subarray(at, at + wholeWord);
    const isWhole = fill(new Uint8Array(viewMemory(address, byteLength)), descriptor, position);
    pieces[at + wholeWord] = isWhole ? 1 : 0;
    Atomics.store(turns, slot, 2 * ticket + 2);
    Atomics.notify(turns, slot);
  }
}

serve(workerData as ReaderData);
