/** Parameter packing and launch configurations, read back from the memory that a driver would read. */
import { describe, expect, it } from "vitest";
import { viewMemory } from "../ffi.ts";
import { CudaLaunchContext } from "./context.ts";
import { address, f32, f64, i32, i64, kernel, structure, type LaunchShape } from "./launcher.ts";
import type { CudaMemory } from "./memory.ts";
import { NativeWords } from "./native.ts";
import type { CudaSession } from "./session.ts";

const reference = kernel({ file: "none.cu", entry: "none" });

/** A context over a driver that only writes down what it is given. */
function recordingContext() {
  const calls: { name: string; values: number[] }[] = [];
  const parameters: Uint8Array[] = [];
  const out = new NativeWords(8);
  const word = (at: number): number => Number(new DataView(viewMemory(at, 8)).getBigUint64(0, true));
  const functions = new Proxy<Record<string, (...values: number[]) => number>>(
    {},
    {
      get:
        (_, name: string) =>
        (...values: number[]): number => {
          calls.push({ name, values });
          if (name.startsWith("cuLaunchKernel")) {
            const extra = values[values.length - 1];
            expect([word(extra), word(extra + 16), word(extra + 32)]).toEqual([1, 2, 0]);
            const packed = viewMemory(word(extra + 8), word(word(extra + 24)));
            parameters.push(new Uint8Array(packed).slice());
          }
          return 0;
        },
    },
  );
  const session = { functions, driver: { out, functions, majors: [] }, stream: 77, check: () => {} };
  const context = new CudaLaunchContext(session as unknown as CudaSession, {} as unknown as CudaMemory, {
    isDeterministic: false,
  });
  context.adopt(reference, 5);
  const launch = (
    values: Parameters<CudaLaunchContext["launch"]>[2],
    shape: LaunchShape = { grid: 1, block: 1 },
  ) => {
    context.launch(reference, shape, values);
    return parameters[parameters.length - 1];
  };
  return { calls, launch };
}

describe("CudaLaunchContext.launch", () => {
  it("lays parameters out as the C compiler does", () => {
    const { launch } = recordingContext();
    const packed = launch([
      i32(-2),
      address(2 ** 47 + 5),
      f32(1.5),
      i32(7),
      i32(9),
      i64(-3),
      f32(-0.25),
      f64(Math.PI),
      i64(2 ** 40 + 1),
    ]);
    const view = new DataView(packed.buffer);
    expect(view.getInt32(0, true)).toBe(-2);
    expect(view.getBigUint64(8, true)).toBe(2n ** 47n + 5n);
    expect(view.getFloat32(16, true)).toBe(1.5);
    expect(view.getInt32(20, true)).toBe(7);
    expect(view.getInt32(24, true)).toBe(9);
    expect(view.getBigInt64(32, true)).toBe(-3n);
    expect(view.getFloat32(40, true)).toBe(-0.25);
    expect(view.getFloat64(48, true)).toBe(Math.PI);
    expect(view.getBigInt64(56, true)).toBe(2n ** 40n + 1n);
    expect(packed.byteLength).toBe(64);
  });

  it("aligns structures to what they ask for", () => {
    const { launch } = recordingContext();
    const packed = launch([i32(1), structure(new Uint8Array(128).fill(0xab), 64), i32(2)]);
    expect([...packed.subarray(64, 192)].every((byte) => byte === 0xab)).toBe(true);
    expect(new DataView(packed.buffer).getInt32(192, true)).toBe(2);
    expect(packed.byteLength).toBe(196);
  });

  it("gives the driver extents, shared memory and stream, and raises the shared-memory limit first", () => {
    const { calls, launch } = recordingContext();
    launch([i32(1)], { grid: [2, 3, 4], block: [32, 2], sharedBytes: 65_536 });
    launch([i32(1)], { grid: 8, block: 128, sharedBytes: 1024 });
    expect(calls.map((call) => call.name)).toEqual([
      "cuFuncSetAttribute",
      "cuLaunchKernel",
      "cuLaunchKernel",
    ]);
    expect(calls[0].values).toEqual([5, 8, 65_536]);
    expect(calls[1].values.slice(0, 9)).toEqual([5, 2, 3, 4, 32, 2, 1, 65_536, 77]);
    expect(calls[2].values.slice(0, 9)).toEqual([5, 8, 1, 1, 128, 1, 1, 1024, 77]);
  });

  it("queues nothing for an empty grid", () => {
    const { calls, launch } = recordingContext();
    launch([i32(1)], { grid: [0, 4], block: 128 });
    expect(calls).toEqual([]);
  });

  it("fills the configuration of clusters and dependent launches", () => {
    const { calls, launch } = recordingContext();
    launch([i32(1)], { grid: [6, 5], block: 64, sharedBytes: 12, cluster: [2, 1], overlapsPrevious: true });
    const [config, handle] = calls[calls.length - 1].values;
    expect(handle).toBe(5);
    const view = new DataView(viewMemory(config, 56));
    expect(Array.from({ length: 7 }, (_, index) => view.getUint32(index * 4, true))).toEqual([
      6, 5, 1, 64, 1, 1, 12,
    ]);
    expect(view.getBigUint64(32, true)).toBe(77n);
    expect(view.getUint32(48, true)).toBe(2);
    const attributes = new DataView(viewMemory(Number(view.getBigUint64(40, true)), 144));
    const at = (offset: number): number => attributes.getUint32(offset, true);
    expect([at(0), at(8), at(12), at(16)]).toEqual([4, 2, 1, 1]);
    expect([at(72), at(80)]).toEqual([6, 1]);
  });
});
