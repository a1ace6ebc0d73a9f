/**
 * Times candidate algorithms of one product on the GPU. Eagerly it uses the compute stream; while a graph is captured, a stream
 * of its own, which is safe because `capture` has waited for the device before. Results go to scratch memory whenever the
 * product's own output holds something or must not be touched. Products of few rows are bound by reading their weights, which are flushed
 * from the second-level cache between runs, because a model's other layers do the same. How large ones are searched: search.ts.
 */
import type { LtAlgorithm, LtProblem } from "./cublaslt.ts";
import type { CudaMemory } from "./memory.ts";
import { searchUnderLoad, type Stretch, type TimedChoice } from "./search.ts";
import { AlgorithmTimer, type TimerRequest, type TimerTools } from "./timer.ts";

const numRuns = 4;
/** Up to this many rows a product is bound by reading its weights. */
const fewRows = 512;

/** Whether a product is timed under lasting load: it is bound by arithmetic. */
export function isLasting({ columns, rows }: LtProblem): boolean {
  return Math.min(columns, rows) > fewRows;
}

export interface TuningTools extends TimerTools {
  readonly memory: CudaMemory;
}

export interface TuningRequest extends Omit<TimerRequest, "workspace"> {
  readonly problem: LtProblem;
  readonly candidates: readonly LtAlgorithm[];
}

/** The fastest candidate, or undefined where there is no memory to time them. Waits for the device. */
export function timeAlgorithms(tools: TuningTools, request: TuningRequest): TimedChoice | undefined {
  const { memory, context } = tools;
  const { problem, candidates } = request;
  const needsOutput = request.beta !== 0 || context.isCapturing;
  const outputBytes = problem.columns * problem.strideD * (problem.output === "f32" ? 4 : 2);
  const workspaceBytes = Math.max(...candidates.map((candidate) => candidate.workspaceBytes));
  const isUnderLoad = isLasting(problem);
  const flushBytes = isUnderLoad ? 0 : 2 * context.l2CacheBytes;
  return memory.withScratch(
    [workspaceBytes, flushBytes, needsOutput ? outputBytes : 0],
    ([workspace, flush, output]) => {
      const d = needsOutput ? output : request.d;
      using timer = new AlgorithmTimer(tools, { ...request, d, workspace });
      if (!isUnderLoad) return fastestFlushed(timer, candidates, { flush, flushBytes });
      return searchUnderLoad(timer, candidates);
    },
  );
}

/** The candidate whose best run is shortest; the library's order decides between equals. */
function fastestFlushed(
  timer: AlgorithmTimer,
  candidates: readonly LtAlgorithm[],
  scratch: { flush: number; flushBytes: number },
): TimedChoice | undefined {
  const runs: { algorithm: LtAlgorithm; stretch: Stretch }[] = [];
  for (const algorithm of timer.runnable(candidates))
    for (let run = 0; run < numRuns; run++) {
      timer.fill(scratch.flush, scratch.flushBytes);
      runs.push({ algorithm, stretch: timer.queue(algorithm, 1) });
    }
  timer.wait();
  let best: TimedChoice | undefined;
  for (const { algorithm, stretch } of runs) {
    const microseconds = 1000 * stretch.millisecondsEach();
    if (best === undefined || microseconds < best.microseconds) best = { algorithm, microseconds };
  }
  return best;
}
