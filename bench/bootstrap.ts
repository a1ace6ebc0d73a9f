/**
 * How long the standard error of LAMBADA's perplexity takes: 100,000 resamples of 5,153 log-likelihoods, drawn as the reference harness
 * draws them. Processor time, so that what else runs does not count.
 *
 * usage: node bench/bootstrap.ts [--iterations N] [--samples N]
 */
import { parseArgs } from "node:util";
import { RandomStream } from "../src/base/index.ts";
import { aggregate } from "../src/eval/index.ts";

const { values: options } = parseArgs({
  options: {
    iterations: { type: "string", default: "100000" },
    samples: { type: "string", default: "5153" },
  },
});
const random = new RandomStream(1);
const values = Array.from({ length: Number(options.samples) }, () => -4 * random.nextFloat());
const before = process.cpuUsage();
const start = performance.now();
const { value, standardError } = aggregate("perplexity", values, {
  bootstrapIterations: Number(options.iterations),
});
const { user, system } = process.cpuUsage(before);
console.log(
  `${options.iterations} resamples of ${options.samples}: ${((user + system) / 1e6).toFixed(1)} s of processor time, ` +
    `${((performance.now() - start) / 1000).toFixed(1)} s in all; ${value.toFixed(4)} ± ${standardError.toFixed(4)}`,
);
