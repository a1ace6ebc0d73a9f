/** The conformance runner must notice every kind of fault: here are devices that commit them. */
import { afterAll, describe, expect, it } from "vitest";
import { dtypeBytes, encodeValues, decodeValues } from "../../src/base/index.ts";
import { ops } from "../../src/device/index.ts";
import type { Device, OpArguments, OpName, OpSpec, TensorArgument } from "../../src/device/index.ts";
import { createReferenceDevice } from "../../src/device/reference/index.ts";
import { close, conformanceCase, numElementsOf, operand, operandsOf, type Operand } from "./case.ts";
import { allCases } from "./cases/index.ts";
import { runCase } from "./runner.ts";

const reference = createReferenceDevice();
afterAll(() => reference.dispose());

/** The reference with some of its methods replaced. */
function deviceWith(methods: Partial<Device>): Device {
  return new Proxy(reference, {
    get(target, name) {
      const found: unknown = Reflect.get(methods, name) ?? Reflect.get(target, name);
      return typeof found === "function" ? found.bind(target) : found;
    },
  });
}

type AnyArguments = Readonly<Record<string, TensorArgument | number | undefined>>;

/** A graph that only calls what it was to record. */
const captureByCalling = (record: () => void): ReturnType<Device["capture"]> => ({
  replay: record,
  dispose: () => {},
  [Symbol.dispose]: () => {},
});

/** The reference, with `tamper` after every operator. */
function tamperingDevice(tamper: (name: OpName, args: AnyArguments) => void): Device {
  return deviceWith({
    capture: captureByCalling,
    run: <Name extends OpName>(name: Name, args: OpArguments<Name>) => {
      reference.run(name, args);
      tamper(name, args);
    },
  });
}

function tensorOf(args: AnyArguments, name: string): TensorArgument {
  const tensor = args[name];
  if (typeof tensor !== "object") throw new TypeError(`no tensor ${name}`);
  return tensor;
}

/** Changes the element `index` of a tensor. */
function change(
  { buffer, byteOffset, dtype }: TensorArgument,
  index: number,
  by: (value: number) => number,
): void {
  const bytes = new Uint8Array(dtypeBytes(dtype));
  const at = byteOffset + index * bytes.byteLength;
  reference.download(buffer, at, bytes);
  reference.upload(buffer, at, encodeValues(dtype, [by(decodeValues(dtype, bytes)[0])]));
}

const addition = conformanceCase("add", "three rows", (data) => ({
  a: operand("f32", 10, { values: data.normal(10) }),
  b: operand("f32", 10, { values: data.normal(10) }),
  y: operand("f32", 10, { check: close() }),
  numElements: 10,
}));

describe("the conformance runner", () => {
  it("passes a device that does as the reference", () => {
    expect(runCase(reference, addition)).toMatchObject({ status: "passed", worst: 0, message: "" });
  });

  it.for([
    ["before", -1],
    ["after", 10],
  ] as const)("notices a store %s the result", ([, index]) => {
    const device = tamperingDevice((_, args) => change(tensorOf(args, "y"), index, () => 1));
    expect(runCase(device, addition).message).toContain("y: memory around it was written");
  });

  it("notices a store to an input", () => {
    const device = tamperingDevice((_, args) => change(tensorOf(args, "b"), 3, (value) => value + 1));
    expect(runCase(device, addition).message).toContain("b: an input was written");
  });

  it("notices NaN, and says where", () => {
    const device = tamperingDevice((_, args) => change(tensorOf(args, "y"), 7, () => Number.NaN));
    expect(runCase(device, addition).message).toMatch(/^y: element 7 \(row 0, column 7\) is NaN, expected /);
  });

  it("notices an operator that does nothing", () => {
    expect(runCase(deviceWith({ run: () => {} }), addition).status).toBe("failed");
  });

  it("notices memory that is not given back", () => {
    const device = tamperingDevice(() => void reference.allocate(64));
    expect(runCase(device, addition).message).toContain("bytes more are live than before");
  });

  it("notices results that change from run to run", () => {
    let numRuns = 0;
    const device = tamperingDevice((_, args) => {
      numRuns++;
      change(tensorOf(args, "y"), 0, (value) => value * (1 + numRuns * 2 ** -23));
    });
    expect(runCase(device, addition).message).toContain("differs when replayed");
  });

  it("notices a capture that runs what it records", () => {
    const capture = (record: () => void): ReturnType<Device["capture"]> => {
      record();
      return { replay: () => {}, dispose: () => {}, [Symbol.dispose]: () => {} };
    };
    expect(runCase(deviceWith({ capture }), addition).message).toContain("recording a graph ran it");
  });

  it("notices missing support", () => {
    const result = runCase(deviceWith({ supports: () => false }), addition);
    expect(result.message).toContain("expected support for a f32, b f32, y f32");
  });
});

/** The place of the element farthest from zero, in elements from the tensor's start. */
function largest(operand: Operand, tensor: TensorArgument): number {
  const size = dtypeBytes(operand.dtype);
  const bytes = new Uint8Array(((operand.numRows - 1) * operand.stride + operand.width) * size);
  reference.download(tensor.buffer, tensor.byteOffset, bytes);
  const values = decodeValues(operand.dtype, bytes);
  let best = 0;
  for (let row = 0; row < operand.numRows; row++) {
    for (let i = row * operand.stride; i < row * operand.stride + operand.width; i++) {
      if (Math.abs(values[i]) > Math.abs(values[best])) best = i;
    }
  }
  return best;
}

/** Another value: 5 % off, and by at least one where it is whole. */
function spoil(value: number): number {
  if (value === 0) return 1;
  if (!Number.isFinite(value)) return 0;
  return Number.isInteger(value) ? Math.trunc(value * 1.05) + Math.sign(value) : value * 1.05;
}

describe("conformance cases", () => {
  it("have labels of their own", () => {
    const names = allCases().map(({ op, label }) => `${op} ${label}`);
    expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([]);
  });

  it("notice an error of 5 % in the largest element of any result, single activations in the tails aside", () => {
    const missed: string[] = [];
    for (const candidate of allCases()) {
      const problem = candidate.build();
      if (numElementsOf(problem) > 20_000) continue;
      const spec: OpSpec = ops[candidate.op];
      for (const [name, result] of operandsOf(problem)) {
        const numElements = result.numRows * result.width;
        if (spec.tensors[name].startsWith("read") || numElements === 0) continue;
        if (numElements === 1 && candidate.op.startsWith("activation")) continue;
        const device = tamperingDevice((_, args) => {
          const tensor = tensorOf(args, name);
          change(tensor, largest(result, tensor), spoil);
        });
        const { status, message } = runCase(device, candidate);
        if (status !== "failed" || !message.includes(`${name}: `)) {
          missed.push(`${candidate.op} ${candidate.label}: ${name}`);
        }
      }
    }
    expect(missed).toEqual([]);
  });
});
