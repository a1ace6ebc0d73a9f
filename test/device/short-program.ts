/** Computes on the CPU backend, on as many threads as it is told, until the very moment the process ends. */
import { openDevice } from "../../src/device/index.ts";

const numBytes = 64 << 20;
const device = await openDevice({ kind: "cpu", threads: Number(process.argv[2]) });
const [from, to] = [device.allocate(numBytes), device.allocate(numBytes)];
process.on("exit", () => {
  for (let i = 0; i < 4; i++) device.copy(to, 0, from, 0, numBytes);
  device.synchronize();
  process.stdout.write("done\n");
});
