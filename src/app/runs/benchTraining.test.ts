/** How large a training step `nautilus bench gpu` takes on cards of several sizes. */
import { expect, it } from "vitest";
import { checkDecoderConfig, nemotronPreset } from "../../models/index.ts";
import { planTraining } from "./benchTraining.ts";

const config = checkDecoderConfig(nemotronPreset("nemotron-3-8b"));
const asked = { config, chunkBytes: 2 ** 30, numSequences: undefined, recompute: undefined };

function plan(gibibytes: number, options: Partial<Parameters<typeof planTraining>[1]>) {
  const statistics = {
    liveBytes: 0,
    peakLiveBytes: 0,
    numLiveBuffers: 0,
    reservedBytes: 0,
    peakReservedBytes: 0,
  };
  const device = { memory: () => ({ ...statistics, totalBytes: gibibytes * 2 ** 30 }) };
  const { numSequences, recompute } = planTraining(device, {
    ...asked,
    isFrozen: false,
    hasMaster: false,
    ...options,
  });
  return `${numSequences} ${recompute}`;
}

it("takes four sequences without recomputation on an H200, frozen or not", () => {
  expect(plan(139.8, {})).toBe("4 none");
  expect(plan(139.8, { isFrozen: true })).toBe("4 none");
});

it("recomputes before it takes fewer sequences", () => {
  expect(plan(110, {})).toBe("4 norm-activation");
});

it("counts four bytes a parameter more for a master copy", () => {
  expect(plan(139.8, { hasMaster: true })).toBe("4 block");
  expect(plan(166, { hasMaster: true })).toBe("4 none");
});

it("knows that frozen weights keep no inputs: 57.3 GiB were measured with four sequences", () => {
  expect(plan(79.6, { isFrozen: true })).toBe("4 none");
  expect(plan(55, { isFrozen: true })).toBe("4 block");
});

it("keeps to what is asked for, fitting or not", () => {
  expect(plan(139.8, { numSequences: 2 })).toBe("2 none");
  expect(plan(139.8, { recompute: "block" })).toBe("4 block");
  expect(plan(24, { numSequences: 8, recompute: "none" })).toBe("8 none");
  expect(plan(24, {})).toBe("1 block");
});
