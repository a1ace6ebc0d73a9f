/** Codecs of tensors: what goes out comes back, against byte layouts written down by hand; what lies is refused; nothing crashes. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { NautilusError, RequestError } from "../../base/index.ts";
import {
  type Datatype,
  fromConfigName,
  numericDataFrom,
  numericDatatypes,
  toConfigName,
} from "./datatypes.ts";
import {
  encodeInferRequest,
  encodeInferResponse,
  parseHeaderLength,
  parseInferRequest,
  parseInferResponse,
} from "./httpInfer.ts";
import { decodeJson, encodeJson } from "./jsonTensor.ts";
import { decodeRaw, encodeRaw } from "./rawTensor.ts";
import {
  type NumericTensor,
  type Tensor,
  readIntegers,
  readNumbers,
  readTexts,
  textTensor,
} from "./tensor.ts";

const seed = 20_231_115;
const datatypes = Object.keys(numericDatatypes) as (keyof typeof numericDatatypes)[];

const numericTensor: fc.Arbitrary<NumericTensor> = fc
  .tuple(fc.constantFrom(...datatypes), fc.array(fc.nat(4), { maxLength: 3 }), fc.infiniteStream(fc.nat(255)))
  .map(([datatype, shape, stream]) => {
    const size = shape.reduce((count, dimension) => count * dimension, 1) * numericDatatypes[datatype].bytes;
    const bytes = Uint8Array.from(stream.take(size), (byte) => (datatype === "BOOL" ? byte & 1 : byte));
    return { name: "x", datatype, shape, data: numericDataFrom(datatype, bytes) };
  });
const bytesTensor: fc.Arbitrary<Tensor> = fc
  .array(fc.uint8Array({ maxLength: 20 }), { maxLength: 6 })
  .map((data) => ({ name: "s", datatype: "BYTES", shape: [data.length, 1], data }));
const anyTensor = fc.oneof(numericTensor, bytesTensor);

/** Bits rather than values: NaN has many. */
function bitsOf(tensor: Tensor): unknown {
  const { name, datatype, shape } = tensor;
  return { name, datatype, shape, bytes: Buffer.from(encodeRaw(tensor)).toString("hex") };
}

describe("raw tensors", () => {
  it("come back as they went, whatever the datatype", () => {
    fc.assert(
      fc.property(anyTensor, (tensor) => {
        const { name, datatype, shape } = tensor;
        expect(bitsOf(decodeRaw({ name, datatype, shape, bytes: encodeRaw(tensor) }))).toEqual(
          bitsOf(tensor),
        );
      }),
      { seed },
    );
  });

  it("are laid out as Triton documents it", () => {
    const hex = (tensor: Tensor): string => Buffer.from(encodeRaw(tensor)).toString("hex");
    expect(hex(textTensor("p", [2, 1], ["ab", "é"]))).toBe("02000000616202000000c3a9");
    expect(hex({ name: "k", datatype: "INT64", shape: [2], data: new BigInt64Array([1n, -2n]) })).toBe(
      "0100000000000000feffffffffffffff",
    );
    expect(hex({ name: "t", datatype: "FP32", shape: [1], data: new Float32Array([0.5]) })).toBe("0000003f");
    expect(hex({ name: "b", datatype: "BOOL", shape: [2], data: new Uint8Array([1, 0]) })).toBe("0100");
  });

  it("are refused when the bytes are not what the shape promises", () => {
    fc.assert(
      fc.property(anyTensor, fc.integer({ min: -9, max: 9 }), (tensor, difference) => {
        fc.pre(difference !== 0);
        const { name, datatype, shape } = tensor;
        const whole = encodeRaw(tensor);
        fc.pre(whole.length + difference >= 0);
        const bytes = new Uint8Array(whole.length + difference);
        bytes.set(whole.subarray(0, bytes.length));
        expect(() => decodeRaw({ name, datatype, shape, bytes })).toThrow(RequestError);
      }),
      { seed },
    );
  });

  it("with absurd shapes are refused before memory is taken for them", () => {
    const bytes = new Uint8Array(8);
    for (const shape of [[2 ** 31, 2 ** 31], [2 ** 30], [-1], [1.5], [Number.NaN], [2 ** 53, 0.5]]) {
      expect(() => decodeRaw({ name: "x", datatype: "BYTES", shape, bytes })).toThrow(RequestError);
      expect(() => decodeRaw({ name: "x", datatype: "INT64", shape, bytes })).toThrow(RequestError);
    }
  });
});

describe("tensors as JSON", () => {
  it("come back as they went where JSON can write them", () => {
    fc.assert(
      fc.property(numericTensor, (tensor) => {
        const values = encodeJson(tensor);
        const { name, datatype, shape } = tensor;
        const isExact = values.every(
          (value) =>
            typeof value === "boolean" ||
            (Number.isFinite(value) &&
              (datatype.startsWith("FP") || datatype === "BF16" || Number.isSafeInteger(value))),
        );
        fc.pre(isExact);
        // Minus nought is written as nought.
        const data: unknown = JSON.parse(JSON.stringify(values));
        expect(
          encodeJson(decodeJson({ name, datatype, shape, data })).map((value) => (value === 0 ? 0 : value)),
        ).toEqual(values.map((value) => (value === 0 ? 0 : value)));
      }),
      { seed },
    );
  });

  it("may be nested as deep as the shape", () => {
    const nested = {
      name: "x",
      datatype: "INT64" as Datatype,
      shape: [2, 3],
      data: [
        [1, 2, 3],
        [4, 5, 6],
      ],
    };
    expect(readIntegers(decodeJson(nested))).toEqual([1, 2, 3, 4, 5, 6]);
    const ragged = {
      ...nested,
      data: [
        [1, 2],
        [3, 4, 5, 6],
      ],
    };
    expect(() => decodeJson(ragged)).toThrow("expected lists of 3 in dimension 1, got [1,2]");
  });

  it("are refused where values are not of the datatype", () => {
    const refused: [Datatype, unknown, string][] = [
      ["INT64", [1.5], "expected integers below 2^53, got 1.5"],
      ["INT8", [200], "expected integers of INT8, got 200"],
      ["UINT64", [-1], "expected integers of UINT64, got -1"],
      ["FP32", ["1"], 'expected numbers, got "1"'],
      ["BOOL", [1], "expected true or false, got 1"],
      ["BYTES", [7], "expected strings, got 7"],
      ["FP32", { length: 1 }, "expected a list as 'data', got {\"length\":1}"],
      ["FP32", undefined, "expected a list as 'data', got nothing"],
      ["FP32", [1, 2], "expected 1 elements for shape [1], got 2"],
    ];
    for (const [datatype, data, message] of refused)
      expect(() => decodeJson({ name: "x", datatype, shape: [1], data })).toThrow(message);
  });
});

describe("reading tensors", () => {
  it("refuses NaN, infinities, integers past 2^53, texts that are not UTF-8", () => {
    const floats = (values: number[]): Tensor => ({
      name: "t",
      datatype: "FP32",
      shape: [values.length],
      data: new Float32Array(values),
    });
    expect(() => readNumbers(floats([1, Number.NaN]))).toThrow("'t': expected finite numbers, got NaN");
    expect(() => readNumbers(floats([-Infinity]))).toThrow("got -Infinity");
    expect(() =>
      readIntegers({ name: "k", datatype: "INT64", shape: [1], data: new BigInt64Array([2n ** 60n]) }),
    ).toThrow("below 2^53");
    expect(() => readIntegers(floats([1]))).toThrow("expected an integer datatype, got FP32");
    expect(() =>
      readTexts({ name: "p", datatype: "BYTES", shape: [1], data: [new Uint8Array([0xc3])] }),
    ).toThrow("expected UTF-8 in element 0");
  });

  it("knows bf16 and fp16", () => {
    expect(readNumbers({ name: "t", datatype: "BF16", shape: [1], data: new Uint16Array([0x3fc0]) })).toEqual(
      [1.5],
    );
    expect(
      readNumbers(
        decodeRaw({ name: "t", datatype: "FP16", shape: [1], bytes: new Uint8Array([0x00, 0x3e]) }),
      ),
    ).toEqual([1.5]);
  });
});

describe("HTTP bodies", () => {
  it("of requests and answers come back as they went", () => {
    fc.assert(
      fc.property(fc.array(anyTensor, { maxLength: 4 }), (tensors) => {
        const named = tensors.map((tensor, index) => ({ ...tensor, name: `t${index}` }));
        const request = encodeInferRequest({
          id: "7",
          parameters: { priority: 1 },
          inputs: named,
          outputs: [{ name: "outputs" }],
        });
        const parsed = parseInferRequest(request);
        expect(parsed.inputs.map(bitsOf)).toEqual(named.map(bitsOf));
        expect(parsed.id).toBe("7");
        expect(parsed.outputs).toEqual([{ name: "outputs", isBinary: true }]);
        const answer = encodeInferResponse(
          { modelName: "m", modelVersion: "1", id: "7", outputs: named },
          () => true,
        );
        expect(parseInferResponse(answer).outputs.map(bitsOf)).toEqual(named.map(bitsOf));
      }),
      { seed },
    );
  });

  it("are refused when sizes lie", () => {
    const { bytes, headerLength } = encodeInferRequest({
      parameters: {},
      inputs: [textTensor("prompts", [1, 1], ["hello"])],
    });
    expect(() => parseInferRequest({ bytes: bytes.subarray(0, -1), headerLength })).toThrow(
      "'prompts': expected a binary_data_size of at most",
    );
    expect(() =>
      parseInferRequest({ bytes: Buffer.concat([bytes, new Uint8Array(3)]), headerLength }),
    ).toThrow("bytes of tensors after the JSON");
    expect(() => parseInferRequest({ bytes, headerLength: undefined })).toThrow("expected JSON");
    for (const text of ["-1", "1e3", "99999", "", "0x10", "9".repeat(40)])
      expect(() => parseHeaderLength(text, 100)).toThrow(RequestError);
    expect(parseHeaderLength("100", 100)).toBe(100);
  });

  it("answer anything at all with an error of ours, from a fixed seed", () => {
    const shown = encodeInferRequest({
      id: "1",
      parameters: {},
      inputs: [
        textTensor("prompts", [2, 1], ["a", "b"]),
        { name: "top_k", datatype: "INT64", shape: [2, 1], data: new BigInt64Array([1n, 1n]) },
      ],
    });
    const length = shown.headerLength ?? 0;
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(shown.bytes.length - 1), fc.nat(255)), { minLength: 1, maxLength: 8 }),
        fc.nat(length + 20),
        (changes, headerLength) => {
          const bytes = new Uint8Array(shown.bytes);
          for (const [at, value] of changes) bytes[at] = value;
          for (const cut of [length, Math.min(headerLength, bytes.length)]) {
            try {
              parseInferRequest({ bytes, headerLength: cut });
            } catch (error) {
              expect(error).toBeInstanceOf(NautilusError);
            }
          }
        },
      ),
      { seed, numRuns: 2000 },
    );
  });
});

it("names of datatypes in configurations", () => {
  expect(datatypes.map((datatype) => fromConfigName(toConfigName(datatype)))).toEqual(datatypes);
  expect(fromConfigName("TYPE_STRING")).toBe("BYTES");
  expect(fromConfigName("TYPE_COMPLEX")).toBeUndefined();
});
