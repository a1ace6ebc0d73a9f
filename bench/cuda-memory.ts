/**
 * How much memory two allocation rules hold beyond what is live, over training steps of the 8.54 B shape with different
 * recompute policies and a change of batch in between. No GPU is used: addresses are numbers. `node bench/cuda-memory.ts`
 *
 * The limit is the peak of live bytes; the rules are best fit in a growing range (the CUDA backend's) and size classes with free
 * lists (the CPU backend's pool).
 */
import { formatBytes } from "../src/base/index.ts";
import { RangeAllocator } from "../src/device/cuda/ranges.ts";
import { MemoryPool } from "../src/device/pool.ts";

interface Rule {
  readonly name: string;
  allocate(byteLength: number): () => void;
  reservedBytes(): number;
}

function bestFit(): Rule {
  const grow = (byteLength: number): number => Math.ceil(byteLength / 2 ** 26) * 2 ** 26;
  const ranges = new RangeAllocator(0, 2 ** 16, { grow, shrink: () => 0 });
  return {
    name: "best fit in a range",
    allocate(byteLength) {
      const block = ranges.allocate(byteLength);
      return () => block && ranges.free(block);
    },
    reservedBytes: () => ranges.reservedBytes,
  };
}

function sizeClasses(): Rule {
  let next = 2 ** 21;
  const pool = new MemoryPool("bench", {
    allocate: (byteLength) => (next += byteLength) - byteLength,
    free: () => {},
  });
  return {
    name: "size classes",
    allocate(byteLength) {
      const block = pool.allocate(byteLength);
      return () => pool.release(block);
    },
    reservedBytes: () => pool.statistics().peakReservedBytes,
  };
}

const width = 4096;
const ffn = 16_384;
const vocab = 256_000;
const numLayers = 32;

/** Allocations of one forward and backward pass over `rows` rows; calls `note` with the bytes that are live. */
function step(
  rule: Rule,
  rows: number,
  keeps: "everything" | "products" | "blocks",
  live: { now: number; peak: number },
): void {
  const take = (elements: number): (() => void) => {
    const byteLength = elements * 2;
    const free = rule.allocate(byteLength);
    live.now += byteLength;
    live.peak = Math.max(live.peak, live.now);
    return () => {
      live.now -= byteLength;
      free();
    };
  };
  const layer = (kept: (() => void)[]): void => {
    const norms = [take(rows * width), take(rows * width)];
    kept.push(take(rows * 3 * width), take(rows * width), take(rows * width), take(rows * ffn));
    const activation = take(rows * ffn);
    const output = take(rows * width);
    if (keeps === "everything") kept.push(...norms, activation);
    else for (const free of [...norms, activation]) free();
    kept.push(output);
  };
  const layers: (() => void)[][] = [];
  for (let index = 0; index < numLayers; index++) {
    const kept: (() => void)[] = [];
    layer(kept);
    if (keeps === "blocks") {
      const output = kept.pop();
      for (const free of kept) free();
      layers.push(output === undefined ? [] : [output]);
    } else layers.push(kept);
  }
  for (let chunk = 0; chunk < 4; chunk++) take((rows / 4) * vocab)();
  for (const kept of layers.toReversed()) {
    if (keeps === "blocks") layer(kept);
    const gradients = [take(rows * width), take(rows * ffn), take(rows * ffn), take(rows * width)];
    gradients.push(take(rows * 3 * width), take(rows * width));
    for (const free of gradients) free();
    for (const free of kept) free();
  }
}

for (const makeRule of [bestFit, sizeClasses]) {
  const rule = makeRule();
  const live = { now: 0, peak: 0 };
  const reported = (label: string): void => {
    const share = ((100 * live.peak) / rule.reservedBytes()).toFixed(1);
    console.log(
      `${rule.name.padEnd(20)} ${label.padEnd(34)} live ${formatBytes(live.peak)}, held ${formatBytes(rule.reservedBytes())}: ${share} %`,
    );
  };
  for (let run = 0; run < 3; run++) step(rule, 8192, "products", live);
  reported("8,192 rows, products kept");
  for (let run = 0; run < 3; run++) step(rule, 7680, "products", live);
  reported("then 7,680 rows");
  for (let run = 0; run < 3; run++) step(rule, 16_384, "blocks", live);
  reported("then 16,384 rows, blocks recomputed");
}
