import { expect, it } from "vitest";
import { e4m3CodeOf, e4m3Largest, e4m3ValueOf } from "./float8.ts";

const finiteCodes = Array.from({ length: 0x7f }, (_, code) => code);

it("has the numbers of the format's table", () => {
  const named: readonly (readonly [number, number])[] = [
    [0x00, 0],
    [0x01, 2 ** -9],
    [0x07, 0.875 * 2 ** -6],
    [0x08, 2 ** -6],
    [0x38, 1],
    [0x3c, 1.5],
    [0x7e, 448],
  ];
  for (const [code, value] of named) {
    expect(e4m3ValueOf(code)).toBe(value);
    expect(e4m3ValueOf(code | 0x80)).toBe(-value);
  }
  expect(e4m3ValueOf(0x7f)).toBeNaN();
  expect(e4m3ValueOf(0xff)).toBeNaN();
});

it("gives every code back", () => {
  for (const code of finiteCodes) {
    expect(e4m3CodeOf(e4m3ValueOf(code))).toBe(code);
    expect(e4m3CodeOf(e4m3ValueOf(code | 0x80))).toBe(code | 0x80);
  }
});

it("rounds to nearest, a tie to the even code", () => {
  for (const code of finiteCodes.slice(0, -1)) {
    const [below, above] = [e4m3ValueOf(code), e4m3ValueOf(code + 1)];
    const middle = (below + above) / 2;
    const even = code % 2 === 0 ? code : code + 1;
    const least = (above - below) * 2 ** -40;
    for (const [sign, bit] of [
      [1, 0],
      [-1, 0x80],
    ]) {
      expect(e4m3CodeOf(sign * middle)).toBe(even | bit);
      expect(e4m3CodeOf(sign * (middle - least))).toBe(code | bit);
      expect(e4m3CodeOf(sign * (middle + least))).toBe((code + 1) | bit);
    }
  }
});

it("saturates, and keeps NaN and the sign of zero", () => {
  for (const value of [e4m3Largest, 464, 480, 1e30, Infinity]) {
    expect(e4m3CodeOf(value)).toBe(0x7e);
    expect(e4m3CodeOf(-value)).toBe(0xfe);
  }
  expect(e4m3CodeOf(NaN)).toBe(0x7f);
  expect(e4m3CodeOf(-0)).toBe(0x80);
  expect(e4m3CodeOf(2 ** -11)).toBe(0);
  expect(e4m3CodeOf(1e-300)).toBe(0);
});
