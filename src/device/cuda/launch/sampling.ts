/** Launchers of applyPenalties and sample. */
import { DtypeError } from "../../../base/index.ts";
import type { TensorArgument } from "../../contract.ts";
import { address, i32, i64, kernel, pointer, type CudaKernels } from "../launcher.ts";
import { ceilDiv, clamp, overlapping } from "./grid.ts";

const applyPenalties = kernel({ file: "penalties.cu", entry: "apply_penalties" });
const sampleScan = kernel({ file: "sample.cu", entry: "sample_scan" });
const sampleDraw = kernel({ file: "sample.cu", entry: "sample_draw" });

const penaltyThreads = 512;
// sample.cu: scan_threads, draw_threads, and the size of Shared.
const scanThreads = 256;
const drawThreads = 1024;
const drawSharedBytes = 2 * 256 * 32 * 4 + 2 * 4096 * 4 + 256 * 8 + 32 * 8 + 64;
const summaryBytes = 16;
/** The subset maxima of a row must fit sample.cu's 8192. */
const mostSplits = 32;

function expectF32(op: string, logits: TensorArgument): void {
  if (logits.dtype !== "f32")
    throw new DtypeError("cuda", `expected f32 logits for ${op}, got ${logits.dtype}`);
}

export const samplingKernels = {
  applyPenalties: (context, args) => {
    const { logits, history, historyLengths, repetition, presence, frequency } = args;
    const { numRows, vocabSize, maxHistory } = args;
    expectF32("applyPenalties", logits);
    if (numRows === 0 || maxHistory === 0) return;
    const tableSize = 2 ** Math.ceil(Math.log2(2 * maxHistory));
    const table = context.workspace(numRows * tableSize * 8);
    const shape = overlapping(context, { grid: numRows, block: penaltyThreads });
    context.launch(applyPenalties, shape, [
      pointer(logits),
      pointer(history),
      pointer(historyLengths),
      pointer(repetition),
      pointer(presence),
      pointer(frequency),
      address(table),
      i64(vocabSize),
      i32(numRows),
      i32(maxHistory),
      i32(tableSize),
    ]);
  },

  sample: (context, args) => {
    const { logits, temperature, topK, topP, minP, seeds, counters, tokens, logprobs } = args;
    const { numRows, vocabSize } = args;
    expectF32("sample", logits);
    if (numRows === 0) return;
    const numSplits = clamp(ceilDiv(vocabSize, 4 * scanThreads), 1, mostSplits);
    const splitSize = 4 * ceilDiv(vocabSize, 4 * numSplits);
    const summariesBytes = 256 * ceilDiv(numRows * numSplits * summaryBytes, 256);
    const summaries = context.workspace(summariesBytes + numRows * numSplits * scanThreads * 4);
    const parameters = [
      ...[logits, temperature, topK, topP, minP, seeds, counters, tokens, logprobs].map(pointer),
      address(summaries),
      address(summaries + summariesBytes),
      i32(vocabSize),
      i32(numSplits),
      i32(splitSize),
    ];
    const scanShape = { grid: [numSplits, numRows], block: scanThreads } as const;
    context.launch(sampleScan, overlapping(context, scanShape), parameters);
    const drawShape = { grid: numRows, block: drawThreads, sharedBytes: drawSharedBytes };
    context.launch(sampleDraw, overlapping(context, drawShape), parameters);
  },
} satisfies CudaKernels;
