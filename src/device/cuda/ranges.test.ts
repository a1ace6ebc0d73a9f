import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { RangeAllocator, type RangeBlock } from "./ranges.ts";

const granule = 64;

function bounded(limitBytes: number, chunkBytes: number) {
  let mapped = 0;
  return {
    source: {
      grow(byteLength: number): number {
        const grown = Math.ceil(byteLength / chunkBytes) * chunkBytes;
        if (mapped + grown > limitBytes) return 0;
        mapped += grown;
        return grown;
      },
      shrink(byteLength: number): number {
        const gone = Math.floor(byteLength / chunkBytes) * chunkBytes;
        mapped -= gone;
        return gone;
      },
    },
    mapped: () => mapped,
  };
}

describe("RangeAllocator", () => {
  it("never gives out a byte twice and keeps its books, whatever the order", () => {
    const step = fc.oneof(
      fc.record({ allocate: fc.integer({ min: 0, max: 3000 }) }),
      fc.record({ free: fc.nat() }),
      fc.record({ trim: fc.constant(true) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const backing = bounded(32_768, 1024);
        const ranges = new RangeAllocator(4096, granule, backing.source);
        const live: RangeBlock[] = [];
        for (const action of steps) {
          if ("allocate" in action) {
            const block = ranges.allocate(action.allocate);
            if (block === undefined) continue;
            expect(block.byteLength).toBeGreaterThanOrEqual(action.allocate);
            expect(block.address % granule).toBe(0);
            for (const other of live) {
              const apart =
                block.address + block.byteLength <= other.address ||
                other.address + other.byteLength <= block.address;
              expect(apart).toBe(true);
            }
            live.push(block);
          } else if ("free" in action && live.length > 0)
            ranges.free(live.splice(action.free % live.length, 1)[0]);
          else if ("trim" in action) ranges.trim();
          const liveBytes = live.reduce((sum, block) => sum + block.byteLength, 0);
          expect(ranges.freeBytes + liveBytes).toBe(ranges.reservedBytes);
          expect(ranges.reservedBytes).toBe(backing.mapped());
        }
        for (const block of live) ranges.free(block);
        ranges.trim();
        expect(ranges.reservedBytes).toBe(0);
      }),
    );
  });

  it("takes the smallest block that fits", () => {
    const ranges = new RangeAllocator(0, granule, bounded(1 << 20, granule).source);
    const blocks = [640, 64, 192, 64, 320, 64].map((length) => ranges.allocate(length));
    for (const index of [0, 2, 4]) ranges.free(blocks[index]!);
    expect(ranges.allocate(190)?.address).toBe(blocks[2]?.address);
    expect(ranges.allocate(200)?.address).toBe(blocks[4]?.address);
  });

  it("repeats a training step's pattern without growing", () => {
    const ranges = new RangeAllocator(0, granule, bounded(1 << 30, 1 << 16).source);
    const lengths = Array.from({ length: 64 }, (_, layer) => 1000 + ((layer * 7919) % 5000));
    const step = (): void => {
      const forward = lengths.map((length) => ranges.allocate(length)!);
      for (const block of forward.toReversed()) {
        const gradient = ranges.allocate(block.byteLength)!;
        ranges.free(block);
        ranges.free(gradient);
      }
    };
    step();
    const after = ranges.reservedBytes;
    for (let i = 0; i < 5; i++) step();
    expect(ranges.reservedBytes).toBe(after);
  });
});
