import fc from "fast-check";
import { expect, it } from "vitest";
import { cutBox, joinBoxes } from "./box.ts";
import type { Box } from "./box.ts";
import { gridIndices } from "./zarr.ts";

/** Elements of a row-major tensor by index, the plain way. */
function elementsOf(shape: readonly number[], { start, shape: length }: Box): number[] {
  return gridIndices(length).map((index) =>
    index.reduce((at, i, axis) => at * shape[axis] + start[axis] + i, 0),
  );
}

const shapes = fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 0, maxLength: 4 });
const itemSizes = fc.constantFrom(1, 2, 4);

/** The tensor whose element i is the bytes of i. */
function counting(numElements: number, itemBytes: number): Uint8Array {
  return Uint8Array.from(
    { length: numElements * itemBytes },
    (_, i) => Math.floor(i / itemBytes) + (i % itemBytes),
  );
}

const reader =
  (bytes: Uint8Array) =>
  (into: Uint8Array, byteOffset: number): void => {
    expect(byteOffset + into.byteLength).toBeLessThanOrEqual(bytes.byteLength);
    into.set(bytes.subarray(byteOffset, byteOffset + into.byteLength));
  };

it("cuts any box, any range of it", () => {
  fc.assert(
    fc.property(shapes, itemSizes, fc.infiniteStream(fc.nat(1000)), (shape, itemBytes, random) => {
      const next = (limit: number): number => Number(random.next().value) % (limit + 1);
      const start = shape.map((length) => next(length - 1));
      const box = { start, shape: shape.map((length, axis) => 1 + next(length - start[axis] - 1)) };
      const bytes = counting(
        shape.reduce((a, b) => a * b, 1),
        itemBytes,
      );
      const expected = elementsOf(shape, box).flatMap((element) => [
        ...bytes.subarray(element * itemBytes, (element + 1) * itemBytes),
      ]);
      const from = next(expected.length - 1);
      const into = new Uint8Array(1 + next(expected.length - from - 1));
      cutBox({ shape, itemBytes, readRange: reader(bytes) }, box)(into, from);
      expect([...into]).toEqual(expected.slice(from, from + into.length));
    }),
    { numRuns: 400, seed: 4 },
  );
});

it("joins what was cut, any range of it", () => {
  fc.assert(
    fc.property(shapes, itemSizes, fc.infiniteStream(fc.nat(1000)), (shape, itemBytes, random) => {
      const next = (limit: number): number => Number(random.next().value) % (limit + 1);
      const bytes = counting(
        shape.reduce((a, b) => a * b, 1),
        itemBytes,
      );
      const chunks = shape.map((length) => 1 + next(length - 1));
      const parts = gridIndices(shape.map((length, axis) => Math.ceil(length / chunks[axis]))).map(
        (index) => {
          const start = index.map((at, axis) => at * chunks[axis]);
          const box = { start, shape: start.map((at, axis) => Math.min(chunks[axis], shape[axis] - at)) };
          return { box, readRange: cutBox({ shape, itemBytes, readRange: reader(bytes) }, box) };
        },
      );
      const from = next(bytes.length - 1);
      const into = new Uint8Array(1 + next(bytes.length - from - 1));
      joinBoxes(shape, itemBytes, parts)(into, from);
      expect([...into]).toEqual([...bytes.subarray(from, from + into.length)]);
    }),
    { numRuns: 400, seed: 5 },
  );
});

it("takes empty tensors", () => {
  const never = (): void => expect.fail("nothing to read");
  joinBoxes([0, 3], 4, [{ box: { start: [0, 0], shape: [0, 3] }, readRange: never }])(new Uint8Array(0), 0);
  cutBox({ shape: [2, 3], itemBytes: 4, readRange: never }, { start: [2, 0], shape: [0, 3] })(
    new Uint8Array(0),
    0,
  );
});

it("refuses a box that reaches out of its tensor", () => {
  const source = { shape: [2, 3], itemBytes: 1, readRange: () => {} };
  expect(() => cutBox(source, { start: [1, 0], shape: [2, 3] })).toThrow(
    "a box of (2, 3) at (1, 0) within (2, 3)",
  );
});
