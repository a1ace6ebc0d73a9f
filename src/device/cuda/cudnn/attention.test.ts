/** The attention graphs without a GPU: cuDNN accepts every descriptor, up to the plan, which needs one. Skipped without cuDNN. */
import { expect, it } from "vitest";
import { messageOf } from "../../../base/index.ts";
import { backwardScratch, planBackward, planForward, type AttentionShape } from "./attention.ts";
import { attentionPolicy } from "./launch.ts";
import { Cudnn } from "./library.ts";

const shape: AttentionShape = {
  B: 2,
  S: 1000,
  H: 4,
  G: 2,
  D: 128,
  numRows: 2000,
  isCausal: true,
  scale: 0.1,
  isPacked: false,
  qRowStride: 1024,
  kRowStride: 1024,
  vRowStride: 1024,
  oRowStride: 512,
};

function open(): Cudnn | string {
  try {
    return new Cudnn([13, 12]);
  } catch (error) {
    return messageOf(error);
  }
}
const opened = open();

it.for([
  ["uniform", shape],
  ["packed", { ...shape, isPacked: true }],
  ["single heads, not causal", { ...shape, G: 4, isCausal: false }],
] as const)("cuDNN takes the operations of the graphs: %s", ([, variant], context) => {
  if (typeof opened === "string") return context.skip(opened);
  // Whatever fails before the choice of a plan has another message.
  const noPlan = "expected a plan of cuDNN";
  expect(() => planForward(opened, variant, true)).toThrow(noPlan);
  expect(() => planForward(opened, variant, false)).toThrow(noPlan);
  expect(() => planBackward(opened, variant, false)).toThrow(noPlan);
  expect(() => planBackward(opened, variant, true)).toThrow(noPlan);
});

it("sizes the scratch of the backward pass", () => {
  const rowSumBytes = 2 * 1000 * 4 * 4;
  expect(backwardScratch(shape, false)).toEqual({
    rowSumBytes,
    dqSumBytes: 2 * 4 * 1000 * 128 * 4,
    perHeadBytes: 0,
  });
  expect(backwardScratch(shape, true).dqSumBytes).toBe(0);
  const packed = backwardScratch({ ...shape, isPacked: true }, false);
  expect(packed).toEqual({
    rowSumBytes,
    dqSumBytes: 2000 * 1024 * 4,
    perHeadBytes: 2000 * (1024 + 1024) * 2 * 2,
  });
});

it("reads the policy", () => {
  expect(attentionPolicy({})).toBe("auto");
  expect(attentionPolicy({ NAUTILUS_ATTENTION: "own" })).toBe("own");
  expect(() => attentionPolicy({ NAUTILUS_ATTENTION: "fast" })).toThrow(
    "expected NAUTILUS_ATTENTION to be auto, own or cudnn, got fast",
  );
});
