/** Launches on a GPU: parameters as the compiler laid them out, shared memory, clusters, dependent launches. Skipped without one. */
import { expect, it, type TestContext } from "vitest";
import { messageOf } from "../../src/base/index.ts";
import { createCudaDevice, type CudaDevice } from "../../src/device/cuda/index.ts";
import { address, f32, f64, i32, i64, kernel, structure } from "../../src/device/cuda/launcher.ts";

const file = "../../../../test/cuda/launch.cu";
const kernels = {
  echo: kernel({ file, entry: "echo", minimumCapability: 90 }),
  sumShared: kernel({ file, entry: "sum_shared", minimumCapability: 90 }),
  clusterSize: kernel({ file, entry: "cluster_size", minimumCapability: 90 }),
  chained: kernel({ file, entry: "chained", minimumCapability: 90 }),
};

function openHopper(context: TestContext): CudaDevice {
  let device: CudaDevice;
  try {
    device = createCudaDevice();
  } catch (error) {
    return context.skip(messageOf(error));
  }
  const capability = device.launchContext.computeCapability;
  if (capability >= 90) return device;
  device.dispose();
  return context.skip(`needs compute capability 9.0, not ${capability / 10}`);
}

function int32s(device: CudaDevice, buffer: ReturnType<CudaDevice["allocate"]>): Int32Array {
  const values = new Int32Array(buffer.byteLength / 4);
  device.download(buffer, 0, new Uint8Array(values.buffer));
  return values;
}

it("gives kernels their parameters", (context) => {
  using device = openHopper(context);
  const out = device.allocate(48);
  const table = new Int32Array(24);
  table[0] = 1000;
  table[23] = 24;
  device.launchContext.launch(kernels.echo, { grid: 1, block: 1 }, [
    address(out.address),
    i32(-7),
    f32(0.5),
    i64(-(2 ** 40)),
    f64(Math.E),
    structure(new Uint8Array(table.buffer), 4),
    i32(9),
  ]);
  const values = new Float64Array(6);
  device.download(out, 0, new Uint8Array(values.buffer));
  expect([...values]).toEqual([-7, 0.5, -(2 ** 40), Math.E, 1024, 9]);
});

it("raises the limit of dynamic shared memory", (context) => {
  using device = openHopper(context);
  const out = device.allocate(4);
  for (const sharedBytes of [1024, 200_000, 4096]) {
    const count = sharedBytes / 4;
    device.launchContext.launch(kernels.sumShared, { grid: 1, block: 128, sharedBytes }, [
      address(out.address),
      i32(count),
    ]);
    let expected = 0;
    for (let index = 0; index < count; index++) expected += index & 15;
    expect(int32s(device, out)[0]).toBe(expected);
  }
});

it("launches clusters and kernels that overlap, also from a graph", (context) => {
  using device = openHopper(context);
  const { launchContext } = device;
  const sizes = device.allocate(32);
  launchContext.launch(kernels.clusterSize, { grid: 8, block: 32, cluster: 4 }, [address(sizes.address)]);
  expect([...int32s(device, sizes)]).toEqual(Array.from({ length: 8 }, () => 4));

  const count = 100_000;
  const a = device.allocate(count * 4);
  const b = device.allocate(count * 4);
  const rounds = 20;
  const chain = (): void => {
    for (const buffer of [a, b]) launchContext.memset(buffer.address, 0, count * 4);
    for (let round = 0; round < rounds; round++) {
      const [from, to] = round % 2 === 0 ? [a, b] : [b, a];
      launchContext.launch(
        kernels.chained,
        { grid: Math.ceil(count / 256), block: 256, overlapsPrevious: true },
        [address(from.address), address(to.address), i32(count)],
      );
    }
  };
  // b += a + 1, a += b + 1, …
  let [x, y] = [0, 0];
  for (let round = 0; round < rounds; round++) [x, y] = round % 2 === 0 ? [x, y + x + 1] : [x + y + 1, y];
  const check = (): void => {
    expect(int32s(device, a).every((value) => value === x)).toBe(true);
    expect(int32s(device, b).every((value) => value === y)).toBe(true);
  };
  chain();
  check();
  using graph = device.capture(chain);
  graph.replay();
  graph.replay();
  check();
});
