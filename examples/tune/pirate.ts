/**
 * The demonstration model of this repository learns a pirate's manner, and a dozen facts that it answers questions about, by LoRA on all
 * linear modules, in seconds on two cores. Run, look, serve:
 *   npx nautilus tune examples/tune/pirate.ts
 *   npx node examples/tune/evaluate.ts
 *   npx nautilus serve --model demo/nautilus-demo-20m --adapter pirate=runs/pirate
 */
import { fileURLToPath } from "node:url";
import { defineTune } from "../../src/train/index.ts";

const here = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

export default defineTune({
  run: "runs/pirate",
  model: here("../../demo/nautilus-demo-20m"),
  method: { method: "lora", rank: 16, alpha: 32, targets: "all-linear" },
  data: { train: here("pirate.jsonl"), validation: [here("pirate-held-out.jsonl")] },
  maxLength: 256,
  batchSize: 2,
  steps: 40,
  optim: { lr: 3e-3 },
  evaluation: { everySteps: 20 },
});
