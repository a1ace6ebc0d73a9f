/** Reads of pieces of files by the C library's threads: exact bytes whatever the lengths, places and order, and what is not whole. Needs no GPU. */
import { spawnSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { FileReaders } from "../../src/device/cuda/fileReaders.ts";
import { openSystemLibrary, type SystemLibrary } from "../../src/device/cuda/systemLibrary.ts";
import { addressOfMemory } from "../../src/device/ffi.ts";

const slotBytes = 1000;
const fileBytes = 100_003;
const folder = mkdtempSync(join(tmpdir(), "nautilus-readers-"));
const contents = [0, 1].map((file) =>
  Uint8Array.from({ length: fileBytes }, (_, i) => ((i + file) * 2_654_435_761) >>> 13),
);
const descriptors: number[] = [];
const found = openSystemLibrary();

beforeAll(() => {
  for (const [file, content] of contents.entries()) {
    writeFileSync(join(folder, String(file)), content);
    descriptors.push(openSync(join(folder, String(file)), "r"));
  }
});
afterAll(() => {
  for (const descriptor of descriptors) closeSync(descriptor);
  rmSync(folder, { recursive: true });
});
beforeEach((context) => {
  if (found === undefined) context.skip("reads by threads of the C library need glibc");
});

interface Piece {
  readonly position: number;
  readonly byteLength: number;
  /** 0 or 1, or none of this process. */
  readonly file: number;
}

/** Reads pieces through `numSlots` places; undefined for one that is not whole. */
function readAll(
  pieces: readonly Piece[],
  {
    numSlots,
    numThreads,
    library = found,
  }: { numSlots: number; numThreads: number; library?: SystemLibrary | undefined },
): (Uint8Array | undefined)[] {
  if (library === undefined) throw new Error("expected glibc");
  const memory = Array.from({ length: numSlots }, () => new ArrayBuffer(slotBytes));
  const readers = new FileReaders(library, { numSlots, numThreads });
  const read: (Uint8Array | undefined)[] = pieces.map(() => undefined);
  try {
    const free = memory.map((_, slot) => slot);
    const inSlots: number[] = [];
    for (let next = 0; next < pieces.length || readers.numPending > 0;) {
      for (; next < pieces.length && free.length > 0 && readers.hasRoom; next++) {
        const slot = free.shift();
        if (slot === undefined) break;
        inSlots[slot] = next;
        const descriptor = descriptors[pieces[next].file] ?? 1_000_000;
        const address = addressOfMemory(memory[slot]);
        if (!readers.post(slot, { ...pieces[next], descriptor, address })) free.push(slot);
      }
      if (readers.numPending === 0) continue;
      for (const { slot, isWhole } of readers.take()) {
        const piece = inSlots[slot];
        if (isWhole) read[piece] = new Uint8Array(memory[slot].slice(0, pieces[piece].byteLength));
        free.push(slot);
      }
    }
    return read;
  } finally {
    readers.dispose();
  }
}

const expectWhole = (pieces: readonly Piece[], read: readonly (Uint8Array | undefined)[]): void => {
  for (const [i, { file, position, byteLength }] of pieces.entries())
    expect(
      Buffer.compare(
        read[i] ?? Buffer.from("nothing"),
        contents[file].subarray(position, position + byteLength),
      ),
    ).toBe(0);
};
const openDescriptors = (): number => readdirSync("/proc/self/fd").length;

describe("file readers", () => {
  for (const [numSlots, numThreads] of [
    [1, 1],
    [3, 2],
    [12, 4],
  ])
    it(`brings every piece of two files through ${numSlots} places by ${numThreads} threads`, () => {
      const pieces = Array.from({ length: 300 }, (_, i) => ({
        position: (i * 7919) % (fileBytes - slotBytes),
        byteLength: i % 5 === 0 ? slotBytes : 1 + ((i * 37) % slotBytes),
        file: (i >> 3) % 2,
      }));
      const numOpen = openDescriptors();
      expectWhole(pieces, readAll(pieces, { numSlots, numThreads }));
      expect(openDescriptors()).toBe(numOpen);
    });

  it("tells which pieces are not whole, in the middle of others", () => {
    const pieces = [
      { position: 0, byteLength: 10, file: 0 },
      { position: fileBytes - 5, byteLength: 10, file: 0 },
      { position: fileBytes + 5, byteLength: 10, file: 0 },
      { position: 10, byteLength: 10, file: 2 },
      { position: fileBytes - 5, byteLength: 5, file: 1 },
    ];
    const read = readAll(pieces, { numSlots: 2, numThreads: 2 });
    expect(read.map((bytes) => bytes?.byteLength)).toEqual([10, undefined, undefined, undefined, 5]);
  });

  it("reads through the file's own descriptor where no other is to be had", () => {
    if (found === undefined) return;
    const library = { ...found, fcntl: () => -1 };
    const pieces = Array.from({ length: 50 }, (_, i) => ({ position: i * 31, byteLength: 977, file: i % 2 }));
    expectWhole(pieces, readAll(pieces, { numSlots: 8, numThreads: 4, library }));
    for (const descriptor of descriptors) expect(readdirSync("/proc/self/fd")).toContain(String(descriptor));
  });

  it("needs no more descriptors than the system gives", () => {
    const program = join(import.meta.dirname, "readWithoutDescriptors.ts");
    const { stdout, stderr, status } = spawnSync(
      "sh",
      ["-c", 'ulimit -n 64 && exec "$0" "$@"', process.execPath, program, join(folder, "0")],
      { encoding: "utf8", timeout: 60_000 },
    );
    expect([stderr, status, JSON.parse(stdout)]).toEqual(["", 0, { numWhole: 100, isExact: true, left: 2 }]);
  });

  it("says which reads the system does not start", () => {
    if (found === undefined) return;
    let numAsked = 0;
    const aio_read = (block: number): number => (numAsked++ % 2 === 0 ? -1 : found.aio_read(block));
    const pieces = Array.from({ length: 6 }, (_, i) => ({ position: i, byteLength: 100, file: 0 }));
    const read = readAll(pieces, { numSlots: 3, numThreads: 2, library: { ...found, aio_read } });
    expect(read.map((bytes) => bytes !== undefined)).toEqual([false, true, false, true, false, true]);
  });

  it("waits again when a signal ends the wait", () => {
    if (found === undefined) return;
    const library = { ...found, aio_suspend: () => -1 };
    const pieces = Array.from({ length: 20 }, (_, i) => ({ position: i, byteLength: 500, file: 0 }));
    expectWhole(pieces, readAll(pieces, { numSlots: 4, numThreads: 2, library }));
  });

  it("waits for the reads under way when it is disposed early", () => {
    if (found === undefined) return;
    const memory = [new ArrayBuffer(slotBytes), new ArrayBuffer(slotBytes)];
    const readers = new FileReaders(found, { numSlots: 2, numThreads: 2 });
    for (const [slot, position] of [0, 500].entries())
      readers.post(slot, {
        descriptor: descriptors[0],
        position,
        byteLength: slotBytes,
        address: addressOfMemory(memory[slot]),
      });
    readers.dispose();
    expect(Buffer.compare(new Uint8Array(memory[1]), contents[0].subarray(500, 500 + slotBytes))).toBe(0);
  });

  it("finds no library under a name that no system has", () => {
    expect(openSystemLibrary(["libnautilus-has-none.so.6"])).toBeUndefined();
  });
});
