import { describe, expect, it } from "vitest";
import { philox, RandomStream } from "./random.ts";

describe("philox", () => {
  it("gives the published vectors of Philox 4x32-10", () => {
    // Known answers of Random123's kat_vectors: zero key and counter.
    expect([...philox(0, 0)]).toEqual([0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
  });

  it("continues a stream from its counter alone", () => {
    const whole = new RandomStream(7);
    const first = [whole.nextFloat(), whole.nextFloat()];
    const rest = new RandomStream(7, whole.counter);
    expect(rest.nextFloat()).toBe(whole.nextFloat());
    expect(first.every((value) => value >= 0 && value < 1)).toBe(true);
  });
});
