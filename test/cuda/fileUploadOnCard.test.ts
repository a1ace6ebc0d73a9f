/** Files onto a real card by threads: the bytes that arrive are the files', whatever order they were read in. Skipped without a GPU. */
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { useCard } from "./card.ts";

const card = useCard();
const folder = mkdtempSync(join(tmpdir(), "nautilus-upload-"));
afterAll(() => {
  rmSync(folder, { recursive: true });
});

it.for([1, 4, 8])("brings files of odd lengths with %i threads", { timeout: 60_000 }, (numThreads) => {
  const device = card();
  const blockBytes = 2 ** 20;
  const lengths = [1, 40 * blockBytes + 13, blockBytes, 70 * blockBytes + 1, 17];
  const files = lengths.map((length, index) => {
    const content = new Uint32Array(Math.ceil(length / 4));
    for (let word = 0; word < content.length; word++)
      content[word] = Math.imul(word ^ (index << 20), 2_654_435_761);
    const bytes = new Uint8Array(content.buffer, 0, length);
    const path = join(folder, `${numThreads}-${index}`);
    writeFileSync(path, bytes);
    return { bytes, descriptor: openSync(path, "r") };
  });
  const target = device.allocate(files.reduce((total, { bytes }) => total + bytes.length + 3, 0));
  let byteOffset = 0;
  const transfers = files.map(({ bytes, descriptor }) => {
    const transfer = { descriptor, position: 0, byteLength: bytes.length, target, byteOffset };
    byteOffset += bytes.length + 3;
    return transfer;
  });
  for (let round = 0; round < 3; round++) {
    device.upload(target, 0, new Uint8Array(target.byteLength).fill(0xa5));
    expect(device.uploadFiles(transfers, { numThreads, blockBytes, leastBytes: 0 })).toEqual([]);
    const arrived = Buffer.alloc(target.byteLength);
    device.download(target, 0, arrived);
    for (const [index, { bytes }] of files.entries()) {
      const { byteOffset: start } = transfers[index];
      expect(arrived.subarray(start, start + bytes.length).equals(bytes)).toBe(true);
      expect([...arrived.subarray(start + bytes.length, start + bytes.length + 3)]).toEqual([
        0xa5, 0xa5, 0xa5,
      ]);
    }
  }
  for (const { descriptor } of files) closeSync(descriptor);
  target.dispose();
});
