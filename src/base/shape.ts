/** Shapes: lists of dimension lengths, row-major. */
import { ShapeError } from "./errors.ts";

export type Shape = readonly number[];

export function numElements(shape: Shape): number {
  return shape.reduce((product, length) => product * length, 1);
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((length, axis) => length === b[axis]);
}

export function formatShape(shape: Shape): string {
  return `(${shape.join(", ")})`;
}

/** Throws a ShapeError naming the first of `actual` whose shape is not `expected`. */
export function expectShape(
  component: string,
  actual: Readonly<Record<string, { shape: Shape }>>,
  expected: Shape,
): void {
  for (const [name, value] of Object.entries(actual)) {
    if (!sameShape(value.shape, expected)) {
      throw new ShapeError(
        component,
        `expected ${name} of shape ${formatShape(expected)}, got ${formatShape(value.shape)}`,
      );
    }
  }
}
