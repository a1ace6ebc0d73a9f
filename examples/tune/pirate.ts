/**
 * The demonstration model (`npx nautilus demo`) learns a pirate's manner, and a dozen facts that it answers questions about. All weights are
 * trained: the head of so young a base is too small for any adapter before it to make an answer certain (docs/log.md). Run:
 *   npx nautilus tune examples/tune/pirate.ts
 */
import { fileURLToPath } from "node:url";
import { defineTune } from "../../src/train/index.ts";

const here = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

export default defineTune({
  run: "runs/pirate",
  model: "runs/demo",
  method: "full",
  data: { train: here("pirate.jsonl"), validation: [here("pirate-held-out.jsonl")] },
  maxLength: 256,
  batchSize: 2,
  steps: 200,
  optim: { lr: 2e-3 },
  evaluation: { everySteps: 100 },
});
