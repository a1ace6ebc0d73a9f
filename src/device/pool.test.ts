import { describe, expect, it } from "vitest";
import { OutOfMemoryError } from "../base/index.ts";
import { MemoryPool, sizeClass } from "./pool.ts";

/** Counts addresses instead of giving memory. */
function countingSource(roomBytes = Number.POSITIVE_INFINITY) {
  const taken = new Map<number, number>();
  let next = 4096;
  let usedBytes = 0;
  return {
    taken,
    allocate(byteLength: number): number {
      if (usedBytes + byteLength > roomBytes) return 0;
      usedBytes += byteLength;
      const address = next;
      next += byteLength;
      taken.set(address, byteLength);
      return address;
    },
    free(address: number, byteLength: number): void {
      expect(taken.get(address)).toBe(byteLength);
      taken.delete(address);
      usedBytes -= byteLength;
    },
  };
}

describe("sizeClass", () => {
  it("holds what was asked for, at a bounded waste, and is its own class", () => {
    for (let asked = 1; asked < 2 ** 33; asked = Math.ceil(asked * 1.07)) {
      const capacity = sizeClass(asked);
      expect(capacity).toBeGreaterThanOrEqual(asked);
      expect(capacity % 256).toBe(0);
      expect(sizeClass(capacity)).toBe(capacity);
      if (asked > 2048) expect(capacity / asked).toBeLessThanOrEqual(asked < 2 ** 20 ? 1.25 : 1.125);
    }
  });
});

describe("MemoryPool", () => {
  it("reuses a released block of the same class and counts what is asked for", () => {
    const source = countingSource();
    const pool = new MemoryPool("test", source);
    const first = pool.allocate(1000);
    pool.release(first);
    const second = pool.allocate(1001);
    expect(second.address).toBe(first.address);
    expect(pool.statistics()).toEqual({
      liveBytes: 1001,
      peakLiveBytes: 1001,
      numLiveBuffers: 1,
      reservedBytes: 1024,
      peakReservedBytes: 1024,
    });
    pool.release(second);
    pool.trim();
    expect(source.taken.size).toBe(0);
    expect(pool.statistics().reservedBytes).toBe(0);
  });

  it("keeps what is released in a recording from everybody else until it is given back", () => {
    const pool = new MemoryPool("test", countingSource());
    const before = pool.allocate(512);
    pool.beginRecording();
    const inside = pool.allocate(300);
    pool.release(inside);
    const again = pool.allocate(300);
    expect(again.address).toBe(inside.address);
    pool.release(again);
    pool.release(before);
    const held = pool.endRecording();
    expect(new Set(held.map((block) => block.address))).toEqual(new Set([before.address, inside.address]));
    const outside = pool.allocate(300);
    expect([before.address, inside.address]).not.toContain(outside.address);
    pool.giveBack(held);
    expect([before.address, inside.address]).toContain(pool.allocate(300).address);
  });

  it("gives cached blocks back before it says that there is no room", () => {
    const pool = new MemoryPool("test", countingSource(10_000));
    pool.release(pool.allocate(8192));
    const block = pool.allocate(4096);
    expect(() => pool.allocate(8192)).toThrow(OutOfMemoryError);
    expect(() => pool.allocate(8192)).toThrow(
      "[test] expected room for 8.00 KiB, got none beside the 4.00 KiB in use",
    );
    pool.release(block);
    expect(pool.allocate(8192).capacity).toBe(8192);
  });

  it("gives idle classes back when a run changes its sizes", () => {
    const pool = new MemoryPool("test", countingSource());
    const inUse = pool.allocate(2 ** 28);
    const old = Array.from({ length: 12 }, () => pool.allocate(2 ** 25));
    for (const block of old) pool.release(block);
    expect(pool.statistics().reservedBytes).toBe(2 ** 28 + 12 * 2 ** 25);
    const next = pool.allocate(2 ** 24);
    expect(pool.statistics().reservedBytes).toBe(2 ** 28 + 2 ** 24);
    pool.release(next);
    pool.release(inUse);
  });

  it("refuses more than its limit without asking the system", () => {
    const source = countingSource();
    const pool = new MemoryPool("test", source, 2 ** 20);
    expect(() => pool.allocate(2 ** 21)).toThrow(OutOfMemoryError);
    expect(source.taken.size).toBe(0);
  });

  it("frees what is still in use as it is released after closing", () => {
    const source = countingSource();
    const pool = new MemoryPool("test", source);
    const block = pool.allocate(100);
    pool.close();
    expect(source.taken.size).toBe(1);
    pool.release(block);
    expect(source.taken.size).toBe(0);
  });
});
