/** Files onto the device through the made-up driver, whose device memory is the host's: bytes, places, errors, and what is left behind. */
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, readdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { readThreads } from "../../src/device/cuda/fileUpload.ts";
import { createCudaDevice, type CudaDevice } from "../../src/device/cuda/index.ts";
import { openSystemLibrary } from "../../src/device/cuda/systemLibrary.ts";
import { openLibrary } from "../../src/device/ffi.ts";
import { buildFakeLibraries } from "./fake/libraries.ts";

const hasCompiler = spawnSync("g++", ["--version"]).status === 0;
const before = process.env.NAUTILUS_CUDA_LIBS;
const fileBytes = 3_000_017;
const blockBytes = 1 << 16;
const content = Uint8Array.from({ length: fileBytes }, (_, i) => (i * 2_654_435_761) >>> 11);
let folder: string;
let device: CudaDevice;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nautilus-upload-"));
  if (!hasCompiler || process.platform !== "linux") return;
  buildFakeLibraries(folder);
  process.env.NAUTILUS_CUDA_LIBS = folder;
  device = createCudaDevice();
});
afterAll(() => {
  if (hasCompiler && process.platform === "linux") device.dispose();
  if (before === undefined) delete process.env.NAUTILUS_CUDA_LIBS;
  else process.env.NAUTILUS_CUDA_LIBS = before;
  rmSync(folder, { recursive: true });
});
beforeEach((context) => {
  if (!hasCompiler) context.skip("building the made-up CUDA libraries needs g++");
  if (process.platform !== "linux") context.skip("the CUDA backend is for Linux");
});

/** A file of its own with the content. */
function openFile(name: string): { path: string; descriptor: number } & Disposable {
  const path = join(folder, name);
  writeFileSync(path, content);
  const descriptor = openSync(path, "r");
  return { path, descriptor, [Symbol.dispose]: () => closeSync(descriptor) };
}

/** Lets the made-up driver fail, see libraries.cpp. */
function driverThat(rule: string): Disposable {
  process.env["FAKE_CUDA"] = rule;
  return { [Symbol.dispose]: () => delete process.env["FAKE_CUDA"] };
}
const ask = (name: string): number => openLibrary(join(folder, "libcuda.so.1")).define(name, "int32", [])();
/** How often the driver was called. */
const numCallsOf = (name: string): number => ask(`calls_of_${name}`);
const numPinned = (): number => ask("fake_num_registered");

/** Ranges of odd lengths, one after the other in the file, with gaps of 3 bytes in the target. */
function ranges(descriptor: number, target: ReturnType<CudaDevice["allocate"]>) {
  const lengths = [0, 1, 7, blockBytes, blockBytes + 1, 3 * blockBytes - 5, 1_000_003, 2, 999];
  let position = 11;
  return lengths.map((byteLength, i) => {
    position += byteLength;
    const start = position - byteLength;
    return { descriptor, position: start, byteLength, target, byteOffset: start + 3 * i };
  });
}

describe("files onto the device", () => {
  it("brings every range to its place and nothing beside it", () => {
    using file = openFile("whole");
    const target = device.allocate(fileBytes + 100);
    device.upload(target, 0, new Uint8Array(target.byteLength).fill(0xa5));
    const transfers = ranges(file.descriptor, target);
    let numRead = 0;
    const observed = transfers.map((transfer) => ({ ...transfer, onRead: (n: number) => (numRead += n) }));
    expect(device.uploadFiles(observed, { numThreads: 3, blockBytes, leastBytes: 0 })).toEqual([]);
    expect(numRead).toBe(transfers.reduce((sum, { byteLength }) => sum + byteLength, 0));
    const expected = new Uint8Array(target.byteLength).fill(0xa5);
    for (const { position, byteLength, byteOffset } of transfers)
      expected.set(content.subarray(position, position + byteLength), byteOffset);
    const got = new Uint8Array(target.byteLength);
    device.download(target, 0, got);
    expect(Buffer.compare(got, expected)).toBe(0);
    target.dispose();
  });

  it("names the ranges of a file that was cut and brings the others", () => {
    using file = openFile("cut");
    const target = device.allocate(fileBytes + 100);
    const transfers = ranges(file.descriptor, target);
    const cutAt = transfers[6].position + 500_000;
    truncateSync(file.path, cutAt);
    const failed = device.uploadFiles(transfers, { numThreads: 2, blockBytes, leastBytes: 0 });
    expect(failed).toEqual(transfers.slice(6));
    const { byteOffset, byteLength, position } = transfers[5];
    const got = new Uint8Array(byteLength);
    device.download(target, byteOffset, got);
    expect(Buffer.compare(got, content.subarray(position, position + byteLength))).toBe(0);
    target.dispose();
  });

  it("starts its threads from a thread, as a server's engine is one", async () => {
    using file = openFile("threaded");
    const worker = new Worker(new URL("uploadInThread.ts", import.meta.url), {
      workerData: { path: file.path, byteLength: fileBytes },
      env: process.env,
    });
    const [{ numLeft, arrived }] = (await once(worker, "message")) as [
      { numLeft: number; arrived: Uint8Array },
    ];
    await worker.terminate();
    expect(numLeft).toBe(0);
    expect(Buffer.compare(arrived, content)).toBe(0);
  });

  it("waits for the oldest copy where all blocks are being copied", () => {
    using file = openFile("slow bus");
    using _bus = driverThat("cuEventQuery=600");
    const target = device.allocate(fileBytes);
    const transfer = {
      descriptor: file.descriptor,
      position: 0,
      byteLength: fileBytes,
      target,
      byteOffset: 0,
    };
    expect(device.uploadFiles([transfer], { numThreads: 2, blockBytes, leastBytes: 0 })).toEqual([]);
    const got = new Uint8Array(fileBytes);
    device.download(target, 0, got);
    expect(Buffer.compare(got, content)).toBe(0);
    target.dispose();
  });

  it("leaves all where no block can be pinned, and what a block that cannot be pinned was read for", () => {
    using file = openFile("unpinned");
    const target = device.allocate(fileBytes + 100);
    const transfers = ranges(file.descriptor, target);
    const options = { numThreads: 2, blockBytes, leastBytes: 0 };
    {
      using _driver = driverThat("cuMemHostRegister_v2=801");
      expect(device.uploadFiles(transfers, options)).toEqual(transfers);
    }
    {
      using _driver = driverThat(`cuMemHostRegister_v2=2@${numCallsOf("cuMemHostRegister_v2") + 3}`);
      const left = device.uploadFiles(transfers, options);
      expect(left.length).toBeGreaterThan(0);
      expect(left.length).toBeLessThan(transfers.length);
    }
    expect(numPinned()).toBe(0);
    target.dispose();
  });

  it("passes on what onRead throws, and what the driver says, and leaves nothing behind", () => {
    using file = openFile("interrupted");
    const target = device.allocate(fileBytes + 100);
    const transfers = ranges(file.descriptor, target);
    const options = { numThreads: 2, blockBytes, leastBytes: 0 };
    const numOpen = readdirSync("/proc/self/fd").length;
    let numBytes = 0;
    const onRead = (byteLength: number): void => {
      numBytes += byteLength;
      if (numBytes > fileBytes / 4) throw new Error("enough");
    };
    const observed = transfers.map((transfer) => ({ ...transfer, onRead }));
    expect(() => device.uploadFiles(observed, options)).toThrow("enough");
    {
      using _driver = driverThat(`cuMemcpyHtoDAsync_v2=700@${numCallsOf("cuMemcpyHtoDAsync_v2") + 10}`);
      expect(() => device.uploadFiles(transfers, options)).toThrow("CUDA_ERROR_ILLEGAL_ADDRESS");
    }
    expect(numPinned()).toBe(0);
    expect(readdirSync("/proc/self/fd").length).toBe(numOpen);
    expect(device.uploadFiles(transfers, options)).toEqual([]);
    target.dispose();
  });

  it("leaves all where the system starts no read, has no library for it, or no thread is wanted", () => {
    using file = openFile("no threads");
    const target = device.allocate(fileBytes + 100);
    const transfers = ranges(file.descriptor, target);
    const library = openSystemLibrary();
    const refusing = library && { ...library, aio_read: () => -1 };
    const notEmpty = transfers.filter(({ byteLength }) => byteLength > 0);
    expect(device.uploadFiles(transfers, { blockBytes, leastBytes: 0, library: refusing })).toEqual(notEmpty);
    expect(device.uploadFiles(transfers, { leastBytes: 0, library: undefined })).toEqual(transfers);
    expect(device.uploadFiles(transfers, { leastBytes: 0, numThreads: 0 })).toEqual(transfers);
    expect(numPinned()).toBe(0);
    target.dispose();
  });

  it("leaves little to one thread", () => {
    using file = openFile("little");
    const target = device.allocate(fileBytes + 100);
    const transfers = ranges(file.descriptor, target);
    expect(device.uploadFiles(transfers)).toEqual(transfers);
    target.dispose();
  });

  it("takes the number of threads from the environment", () => {
    const asked = (value: string) => readThreads({ NAUTILUS_READ_THREADS: value });
    expect([readThreads({}), asked("auto"), asked("off"), asked("7")]).toEqual([undefined, undefined, 0, 7]);
    for (const value of ["0", "-1", "2.5", "21", "many", ""])
      expect(() => asked(value)).toThrow("NAUTILUS_READ_THREADS");
  });

  it("leaves no memory of the device behind", () => {
    const { numLiveBuffers, liveBytes } = device.memory();
    expect([numLiveBuffers, liveBytes, numPinned()]).toEqual([0, 0, 0]);
  });
});
