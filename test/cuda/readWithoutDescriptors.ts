/** Reads a file by many threads in a process that may open two descriptors more. For fileReaders.test.ts; prints what became of it. */
import { closeSync, openSync, readFileSync } from "node:fs";
import { FileReaders } from "../../src/device/cuda/fileReaders.ts";
import { openSystemLibrary } from "../../src/device/cuda/systemLibrary.ts";
import { addressOfMemory } from "../../src/device/ffi.ts";

const path = process.argv[2];
const library = openSystemLibrary();
if (library === undefined) throw new Error("expected glibc");
const content = readFileSync(path);
const descriptor = openSync(path, "r");
const pieceBytes = 1000;
const numPieces = 100;
const memory = new ArrayBuffer(numPieces * pieceBytes);

/** Opens until there is no more; gives back `left` of them. */
function useUpDescriptors(left: number): void {
  const opened: number[] = [];
  try {
    for (;;) opened.push(openSync("/dev/null", "r"));
  } catch {
    for (const other of opened.splice(0, left)) closeSync(other);
  }
}
function countLeft(): number {
  const opened: number[] = [];
  try {
    for (;;) opened.push(openSync("/dev/null", "r"));
  } catch {
    return opened.length;
  } finally {
    for (const other of opened) closeSync(other);
  }
}

useUpDescriptors(2);
const readers = new FileReaders(library, { numSlots: numPieces, numThreads: 8 });
let numWhole = 0;
for (let piece = 0; piece < numPieces || readers.numPending > 0;) {
  for (; piece < numPieces && readers.hasRoom; piece++) {
    const position = piece * pieceBytes;
    const address = addressOfMemory(memory) + position;
    readers.post(piece, { descriptor, position, byteLength: pieceBytes, address });
  }
  numWhole += readers.take().filter(({ isWhole }) => isWhole).length;
}
readers.dispose();
const isExact = content.subarray(0, memory.byteLength).equals(new Uint8Array(memory));
console.log(JSON.stringify({ numWhole, isExact, left: countLeft() }));
