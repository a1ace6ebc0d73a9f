/**
 * The Nautilus half of the comparison with Megatron-LM (see megatron_samples.py beside it): writes three data sets to a
 * folder, builds the data sets of several blends and splits over them, and prints a digest of all samples of each as JSON.
 *
 *   node test/interop/megatronSamples.ts FOLDER > ours.json
 */
import { createHash } from "node:crypto";
import { join } from "node:path";
import {
  type BlendMember,
  MegatronWriter,
  NumpyRandomState,
  openSplits,
  splitNames,
} from "../../src/data/index.ts";

const folder = process.argv[2];
const random = new NumpyRandomState(5);
const sets = [
  { name: "a", numDocuments: 700, longest: 3000, vocabSize: 1000 },
  { name: "b", numDocuments: 150, longest: 400, vocabSize: 70_000 },
  { name: "c", numDocuments: 60, longest: 2000, vocabSize: 300 },
];
for (const { name, numDocuments, longest, vocabSize } of sets) {
  using writer = new MegatronWriter(join(folder, name), vocabSize < 65_500 ? "uint16" : "int32");
  for (let document = 0; document < numDocuments; document++) {
    const length = 1 + random.nextInterval(longest);
    writer.addDocument(
      Int32Array.from({ length }, () => random.nextInterval(vocabSize - 1)),
      length,
    );
  }
  writer.finish({ vocabSize, eosId: 0, tokenizerSha256: null, numEmptyDocuments: 0 });
}

const prefix = (name: string): string => join(folder, name);
const blends: Record<string, BlendMember[]> = {
  single: [{ prefix: prefix("a") }],
  two: [
    { prefix: prefix("a"), weight: 0.7 },
    { prefix: prefix("b"), weight: 0.3 },
  ],
  three: [
    { prefix: prefix("a"), weight: 70 },
    { prefix: prefix("b"), weight: 15 },
    { prefix: prefix("c"), weight: 15 },
  ],
  unweighted: [{ prefix: prefix("a") }, { prefix: prefix("b") }, { prefix: prefix("c") }],
};
const digests: Record<string, [number, string]> = {};
for (const [name, blend] of Object.entries(blends)) {
  const hasWeights = blend.some(({ weight }) => weight !== undefined);
  const sizes = { sized: { train: 5000, valid: 40, test: 7 }, ...(hasWeights ? {} : { whole: {} }) };
  for (const [size, numSamples] of Object.entries(sizes)) {
    using parts = openSplits(blend, { split: "90,6,4", sequenceLength: 64, seed: 99, numSamples });
    for (const part of splitNames) {
      const dataset = parts[part]?.dataset;
      if (dataset === undefined) continue;
      const hash = createHash("sha256");
      const sample = new Int32Array(dataset.sequenceLength + 1);
      for (let i = 0; i < dataset.numSamples; i++) {
        dataset.readSample(i, sample);
        hash.update(sample);
      }
      digests[`${name} ${size} ${part}`] = [dataset.numSamples, hash.digest("hex")];
    }
  }
}
process.stdout.write(`${JSON.stringify(digests, undefined, 2)}\n`);
