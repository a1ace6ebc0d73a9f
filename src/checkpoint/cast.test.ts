import { describe, expect, it } from "vitest";
import { checkpointFixture, expectedTensors } from "../../test/checkpoint/described.ts";
import { decodeValues, roundTo } from "../base/index.ts";
import { castView } from "./cast.ts";
import { openSafetensors } from "./safetensors.ts";
import { tensorTable } from "./source.ts";

describe("castView", () => {
  it.each(["f32", "bf16", "f16", "f64"] as const)(
    "gives every float as %s, any range of it, and the rest as it is",
    (dtype) => {
      const expected = expectedTensors("safetensors/expected.json");
      using source = openSafetensors(checkpointFixture("safetensors/all.safetensors"));
      using view = castView(openSafetensors(source.path), dtype);
      for (const name of ["float64", "float32", "bfloat16", "float16", "scalar"]) {
        const { dtype: stored } = source.info(name);
        if (stored !== "f64" && stored !== "f32" && stored !== "bf16" && stored !== "f16")
          throw new TypeError(stored);
        const wanted = [...decodeValues(stored, source.read(name))].map((value) => roundTo(dtype, value));
        expect(view.info(name)).toMatchObject({ dtype, shape: source.info(name).shape });
        expect([...decodeValues(dtype, view.read(name))]).toEqual(wanted);
      }
      const whole = view.read("float32");
      for (const [from, length] of [
        [1, 5],
        [7, 11],
        [0, whole.length - 1],
      ]) {
        const part = new Uint8Array(length);
        view.readInto("float32", part, from);
        expect(part).toEqual(whole.subarray(from, from + length));
      }
      for (const name of ["int64", "uint8", "bool", "float8_e4m3fn", "empty"]) {
        expect(Buffer.from(view.read(name)).toString("hex")).toBe(expected[name].hex);
      }
    },
  );

  it.each([
    ["bf16", "f16"],
    ["f16", "bf16"],
    ["f16", "f32"],
    ["bf16", "f32"],
  ] as const)("casts every %s there is to %s as numbers are rounded", (from, to) => {
    const bytes = new Uint8Array(Uint16Array.from({ length: 1 << 16 }, (_, bits) => bits).buffer);
    const tensor = {
      dtype: from,
      shape: [1 << 16],
      byteLength: bytes.byteLength,
      readRange: (into: Uint8Array, byteOffset: number) =>
        into.set(bytes.subarray(byteOffset, byteOffset + into.byteLength)),
    };
    using view = castView(tensorTable("here", new Map([["a", tensor]])), to);
    const wanted = decodeValues(from, bytes).map((value) => roundTo(to, value));
    expect(decodeValues(to, view.read("a"))).toEqual(wanted);
  });

  it("rounds f32 to bf16 as numbers are rounded, at every kind of bit pattern", () => {
    const patterns = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff, 0x17fff, 0x18000, 0x18001];
    const tops = [
      0, 0x3f80_0000, 0x7f7f_0000, 0x7f80_0000, 0x0080_0000, 0x7fc0_0000, 0xbf81_0000, 0xff80_0000,
    ];
    const bits = Uint32Array.from(tops.flatMap((top) => patterns.map((low) => (top + low) >>> 0)));
    const values = new Float32Array(bits.buffer);
    const source = tensorTable(
      "here",
      new Map([
        [
          "a",
          {
            dtype: "f32",
            shape: [values.length],
            byteLength: values.byteLength,
            readRange: (into, byteOffset) =>
              into.set(new Uint8Array(bits.buffer, byteOffset, into.byteLength)),
          },
        ],
      ]),
    );
    const cast = decodeValues("bf16", castView(source, "bf16").read("a"));
    expect([...cast]).toEqual([...values].map((value) => roundTo("bf16", value)));
  });
});
