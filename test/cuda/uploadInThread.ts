/** A thread that brings a file onto the device, as the engine's thread of a server does; posts what arrived. For fileUpload.test.ts. */
import { closeSync, openSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import { createCudaDevice } from "../../src/device/cuda/index.ts";

const { path, byteLength } = workerData as { path: string; byteLength: number };
using device = createCudaDevice();
const descriptor = openSync(path, "r");
const target = device.allocate(byteLength);
const transfer = { descriptor, position: 0, byteLength, target, byteOffset: 0 };
const left = device.uploadFiles([transfer], { numThreads: 4, blockBytes: 1 << 16, leastBytes: 0 });
const arrived = new Uint8Array(byteLength);
device.download(target, 0, arrived);
closeSync(descriptor);
target.dispose();
const port = parentPort;
if (port !== null) port.postMessage({ numLeft: left.length, arrived });
