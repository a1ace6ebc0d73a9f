/** Threads that read pieces of files: exact bytes whatever the lengths, places and order, and files that end early. Needs no GPU. */
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FileReaders } from "../../src/device/cuda/fileReaders.ts";
import { addressOfMemory } from "../../src/device/ffi.ts";

const slotBytes = 1000;
const fileBytes = 100_003;
const folder = mkdtempSync(join(tmpdir(), "nautilus-readers-"));
const content = Uint8Array.from({ length: fileBytes }, (_, i) => (i * 2_654_435_761) >>> 13);
let descriptor = -1;

beforeAll(() => {
  writeFileSync(join(folder, "file"), content);
  descriptor = openSync(join(folder, "file"), "r");
});
afterAll(() => {
  closeSync(descriptor);
  rmSync(folder, { recursive: true });
});

/** Reads pieces in order through `numSlots` places; undefined for one that is not whole. */
function readAll(
  pieces: readonly { position: number; byteLength: number; descriptor?: number }[],
  { numSlots, numThreads }: { numSlots: number; numThreads: number },
): (Uint8Array | undefined)[] {
  const memory = Array.from({ length: numSlots }, () => new ArrayBuffer(slotBytes));
  const readers = new FileReaders({ numSlots, numThreads });
  try {
    expect(readers.waitForStart()).toBe(true);
    let posted = 0;
    return pieces.map(() => {
      for (; posted < pieces.length && readers.numPending < numSlots; posted++)
        readers.post({ descriptor, ...pieces[posted], address: addressOfMemory(memory[posted % numSlots]) });
      const { slot, isWhole } = readers.take();
      const { byteLength } = pieces[posted - readers.numPending - 1];
      return isWhole ? new Uint8Array(memory[slot].slice(0, byteLength)) : undefined;
    });
  } finally {
    readers.dispose();
  }
}

describe("file readers", () => {
  for (const [numSlots, numThreads] of [
    [1, 1],
    [3, 2],
    [8, 4],
  ])
    it(`delivers every piece in order through ${numSlots} places by ${numThreads} threads`, () => {
      const pieces = Array.from({ length: 300 }, (_, i) => ({
        position: (i * 7919) % (fileBytes - slotBytes),
        byteLength: i % 5 === 0 ? slotBytes : 1 + ((i * 37) % slotBytes),
      }));
      const read = readAll(pieces, { numSlots, numThreads });
      for (const [i, { position, byteLength }] of pieces.entries())
        expect(
          Buffer.compare(read[i] ?? Buffer.alloc(0), content.subarray(position, position + byteLength)),
        ).toBe(0);
    });

  it("tells which pieces are not whole, in the middle of others", () => {
    const pieces = [
      { position: 0, byteLength: 10 },
      { position: fileBytes - 5, byteLength: 10 },
      { position: 10, byteLength: 10, descriptor: 1_000_000 },
      { position: fileBytes - 5, byteLength: 5 },
    ];
    const read = readAll(pieces, { numSlots: 2, numThreads: 2 });
    expect(read.map((bytes) => bytes?.byteLength)).toEqual([10, undefined, undefined, 5]);
  });

  it("waits for the reads under way when it is disposed early", () => {
    const memory = [new ArrayBuffer(slotBytes), new ArrayBuffer(slotBytes)];
    const readers = new FileReaders({ numSlots: 2, numThreads: 2 });
    expect(readers.waitForStart()).toBe(true);
    for (const [i, position] of [0, 500].entries())
      readers.post({ descriptor, position, byteLength: slotBytes, address: addressOfMemory(memory[i]) });
    readers.dispose();
    expect(Buffer.compare(new Uint8Array(memory[1]), content.subarray(500, 500 + slotBytes))).toBe(0);
  });
});
