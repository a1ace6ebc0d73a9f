/** Loading through a device that reads files itself: the same weights, whatever it leaves to others, and errors as ever. */
import { mkdtempSync, readdirSync, readSync, rmSync, statSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { CheckpointError } from "../../src/base/index.ts";
import { observedView, openCheckpoint } from "../../src/checkpoint/index.ts";
import { openDevice } from "../../src/device/index.ts";
import type { Device, FileTransfer } from "../../src/device/index.ts";
import { Decoder, loadCheckpointModel, saveModelFolder } from "../../src/models/index.ts";
import { Context } from "../../src/tensor/index.ts";
import { tinyConfig } from "../tiny-model.ts";

let folder: string;
let device: Device;
let transfers: readonly FileTransfer[];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "nautilus-load-"));
  device = await openDevice({ kind: "reference" });
  using decoder = new Decoder(new Context(device), tinyConfig, { dtype: "bf16" });
  decoder.parameters.initialise(3);
  saveModelFolder(decoder, folder);
  transfers = [];
});
afterEach(() => {
  device.dispose();
  rmSync(folder, { recursive: true });
});

/** Lets the device read files, but for every third range. */
function readsFiles(): void {
  const uploadFiles = (given: readonly FileTransfer[]): FileTransfer[] => {
    transfers = given;
    return given.filter(({ descriptor, position, byteLength, target, byteOffset, onRead }, i) => {
      if (i % 3 === 2) return true;
      const bytes = new Uint8Array(byteLength);
      if (readSync(descriptor, bytes, 0, byteLength, position) < byteLength) return true;
      device.upload(target, byteOffset, bytes);
      onRead?.(byteLength);
      return false;
    });
  };
  Object.defineProperty(device, "uploadFiles", { value: uploadFiles });
}

async function load(dtype: "bf16" | "f32"): Promise<{ weights: Map<string, Float64Array>; numRead: number }> {
  using checkpoint = await openCheckpoint(folder);
  let numRead = 0;
  const weights = observedView(checkpoint.weights, (_, byteLength) => {
    numRead += byteLength;
  });
  using decoder = loadCheckpointModel(new Context(device), { ...checkpoint, weights }, dtype);
  const values = [...decoder.parameters].map(
    ({ name }) => [name, decoder.parameters.get(name).toArray()] as const,
  );
  return { weights: new Map(values), numRead };
}

it("gives the weights of plain reads, and every byte is seen once", async () => {
  const plain = await load("bf16");
  readsFiles();
  const read = await load("bf16");
  expect(transfers.length).toBeGreaterThan(6);
  expect(read).toEqual(plain);
});

it("leaves tensors of another dtype to conversion", async () => {
  const plain = await load("f32");
  readsFiles();
  expect(await load("f32")).toEqual(plain);
  expect(transfers).toHaveLength(0);
});

it("refuses a file that is cut after it was opened, as ever", async () => {
  readsFiles();
  using checkpoint = await openCheckpoint(folder);
  const [name] = readdirSync(folder).filter((file) => file.endsWith(".safetensors"));
  for (const tensor of checkpoint.weights.names()) checkpoint.weights.info(tensor);
  truncateSync(join(folder, name), statSync(join(folder, name)).size - 1000);
  expect(() => loadCheckpointModel(new Context(device), checkpoint, "bf16")).toThrow(CheckpointError);
  expect(transfers.length).toBeGreaterThan(6);
});
