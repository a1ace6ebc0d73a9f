/** A Nemotron model small enough for the reference backend, and data for it. */
import { RandomStream } from "../src/base/index.ts";
import type { FloatDtype } from "../src/base/index.ts";
import { checkDecoderConfig, Decoder, nemotronPreset } from "../src/models/index.ts";
import type { DecoderConfig } from "../src/models/index.ts";
import type { Context } from "../src/tensor/index.ts";
import type { HostBatch, TrainingData } from "../src/train/index.ts";

export const tinyConfig: DecoderConfig = checkDecoderConfig({
  ...nemotronPreset("nemotron-tiny"),
  vocabSize: 64,
  width: 32,
  ffnWidth: 48,
  numLayers: 2,
  numHeads: 4,
  numKvHeads: 2,
  headDim: 8,
  maxPositions: 64,
  rotary: { rotaryDim: 4, base: 10000 },
  initStd: 0.2,
});

export function tinyDecoder(context: Context, dtype: FloatDtype, gradientDtype?: FloatDtype): Decoder {
  const decoder = new Decoder(context, tinyConfig, { dtype, gradientDtype });
  decoder.parameters.initialise(11);
  return decoder;
}

/** Random tokens that depend on the sample's number alone. */
export function randomData(sequenceLength: number): TrainingData {
  return {
    batch(firstSample, numSequences): HostBatch {
      const tokens = new Int32Array(numSequences * sequenceLength);
      const targets = new Int32Array(tokens.length);
      for (let sequence = 0; sequence < numSequences; sequence++) {
        const random = new RandomStream(firstSample + sequence);
        let token = random.nextInt(tinyConfig.vocabSize);
        for (let t = 0; t < sequenceLength; t++) {
          tokens[sequence * sequenceLength + t] = token;
          token = (token * 5 + random.nextInt(3)) % tinyConfig.vocabSize;
          targets[sequence * sequenceLength + t] = token;
        }
      }
      return { tokens, targets, numSequences, sequenceLength };
    },
  };
}
