/** A folder that a test may fill, gone afterwards; and the fixtures of the data layer. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export class Scratch implements Disposable {
  readonly folder = mkdtempSync(join(tmpdir(), "nautilus-data-"));

  path(...parts: string[]): string {
    return join(this.folder, ...parts);
  }

  /** Writes a file, making its folders; gives its path. */
  write(name: string, content: string | Uint8Array): string {
    const path = this.path(name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, content);
    return path;
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

const fixtures = new URL("../fixtures/data/", import.meta.url);

/** Made by test/fixtures/generate/megatron_data.py. */
export function fixturePath(name: string): string {
  return fileURLToPath(new URL(name, fixtures));
}

export interface SamplingFixture {
  gptIndex: {
    small: {
      lengths: number[];
      begin: number;
      end: number;
      sequenceLength: number;
      numSamples: number | null;
      seed: number;
      numEpochs: number;
      separateLastEpoch: boolean;
      documentIndex: number[];
      sampleIndex: number[];
      shuffleIndex: number[];
    }[];
    large: {
      lengths: number[];
      begin: number;
      end: number;
      sequenceLength: number;
      seed: number;
      cases: {
        numSamples: number | null;
        numEpochs: number;
        separateLastEpoch: boolean;
        numBuilt: number;
        documentIndex: string;
        sampleIndex: string;
        shuffleIndex: string;
      }[];
    };
  };
  blends: {
    weighted: {
      weights: number[];
      numSamples: number;
      normalized: number[];
      planned: number[];
      built: number[];
      datasetIndex: number[];
      datasetSampleIndex: number[];
    }[];
    exhaustive: { sizes: number[]; datasetIndex: number[] }[];
  };
  splits: { split: string; numDocuments: number; ranges: ([number, number] | null)[] }[];
  random: { seed: number; first: number[]; words: string; shuffled: number[] }[];
}

export function samplingFixture(): SamplingFixture {
  return JSON.parse(readFileSync(fixturePath("sampling.json"), "utf8"));
}
