/**
 * Times candidate algorithms of one product on the GPU. Eagerly it uses the compute stream; while a graph is captured, a stream
 * of its own, which is safe because `capture` has waited for the device before. Results go to scratch memory whenever the
 * product's own output holds something or must not be touched. Small weights are flushed from the second-level cache
 * between runs, because a model's other layers do the same. Large products are run back to back for a lasting while: under the load of a
 * training step the card lowers its clock, and then other algorithms win than in single runs (measured: 2.2 % of a step).
 */
import type { CublasLt, LtAlgorithm, LtDescriptors, LtProblem } from "./cublaslt.ts";
import type { LaunchContext } from "./launcher.ts";
import type { CudaMemory } from "./memory.ts";
import { NativeWords } from "./native.ts";
import type { CudaSession } from "./session.ts";

const numRuns = 4;
/** Up to this many rows a product is bound by reading its weights. */
const fewRows = 512;

/** Load before large products are timed, and the time that all candidates of one share. */
const lastingMs = 100;
/** Shortest stretch of one candidate. */
const leastStretchMs = 5;

/** Runs, back to back, that make a candidate's stretch. */
export function lastingRuns(singleMs: number, numCandidates: number): number {
  const stretchMs = Math.max(leastStretchMs, lastingMs / Math.max(1, numCandidates));
  return Math.max(numRuns, Math.min(1000, Math.ceil(stretchMs / Math.max(singleMs, 0.01))));
}

/** A fill of this many bytes takes the GPU longer than the host needs to queue a product. */
const leadBytes = 2 ** 26;

export interface TimedChoice {
  readonly algorithm: LtAlgorithm;
  readonly microseconds: number;
}

export interface TuningTools {
  readonly session: CudaSession;
  readonly memory: CudaMemory;
  readonly library: Pick<CublasLt, "run">;
  readonly context: LaunchContext;
}

export interface TuningRequest {
  readonly problem: LtProblem;
  readonly descriptors: LtDescriptors;
  readonly candidates: readonly LtAlgorithm[];
  readonly a: number;
  readonly b: number;
  readonly d: number;
  readonly beta: number;
}

/** The fastest candidate, or undefined where there is no memory to time them. Waits for the device. */
export function timeAlgorithms(tools: TuningTools, request: TuningRequest): TimedChoice | undefined {
  const { memory, context } = tools;
  const { problem, candidates } = request;
  const needsOutput = request.beta !== 0 || context.isCapturing;
  const outputBytes = problem.columns * problem.strideD * (problem.output === "f32" ? 4 : 2);
  const workspaceBytes = Math.max(...candidates.map((candidate) => candidate.workspaceBytes));
  const hasSmallWeights = Math.min(problem.columns, problem.rows) <= fewRows;
  const flushBytes = hasSmallWeights ? 2 * context.l2CacheBytes : leadBytes;
  return memory.withScratch(
    [workspaceBytes, flushBytes, needsOutput ? outputBytes : 0],
    ([workspace, flush, output]) => {
      const d = needsOutput ? output : request.d;
      return runAll(tools, { ...request, d }, { workspace, flush, flushBytes });
    },
  );
}

function runAll(
  { session, library, context }: TuningTools,
  request: TuningRequest,
  scratch: { workspace: number; flush: number; flushBytes: number },
): TimedChoice | undefined {
  const { functions, driver } = session;
  let stream = session.stream;
  if (context.isCapturing) {
    session.check("cuStreamCreate", functions.cuStreamCreate(driver.out.address, 1));
    stream = driver.out.word(0);
  }
  const scalars = new NativeWords(1);
  scalars.f32[0] = 1;
  scalars.f32[1] = request.beta;
  const events: number[] = [];
  const mark = (): number => {
    const event = session.createEvent(true);
    events.push(event);
    session.check("cuEventRecord", functions.cuEventRecord(event, stream));
    return event;
  };
  const algorithmWords = new NativeWords(8);
  const isLasting = Math.min(request.problem.columns, request.problem.rows) > fewRows;
  /** Whether the card has been under load for `lastingMs`. */
  let isWarm = false;
  const stretchOf = (queue: () => void): number => {
    const singleStart = mark();
    queue();
    const singleEnd = mark();
    session.check("cuStreamSynchronize", functions.cuStreamSynchronize(stream));
    const singleMs = session.elapsedMs(singleStart, singleEnd);
    if (!isWarm) for (let run = lastingRuns(singleMs, 1); run > 0; run--) queue();
    isWarm = true;
    return lastingRuns(singleMs, request.candidates.length);
  };
  const runs: TimedRun[] = [];
  try {
    for (const algorithm of request.candidates) {
      algorithmWords.bytes.set(algorithm.bytes);
      const queue = (): void =>
        library.run(
          request.descriptors,
          { a: request.a, b: request.b, d: request.d, scalars: scalars.address },
          {
            address: algorithmWords.address,
            workspace: scratch.workspace,
            workspaceBytes: algorithm.workspaceBytes,
            stream,
          },
        );
      try {
        queue();
      } catch {
        // The library offers candidates that it then refuses; the others remain.
        continue;
      }
      if (isLasting) {
        const count = stretchOf(queue);
        const start = mark();
        for (let run = 0; run < count; run++) queue();
        runs.push({ algorithm, start, end: mark(), count });
        continue;
      }
      for (let run = 0; run < numRuns; run++) {
        const status = functions.cuMemsetD8Async(scratch.flush, 0, scratch.flushBytes, stream);
        session.check("cuMemsetD8Async", status);
        const start = mark();
        queue();
        runs.push({ algorithm, start, end: mark(), count: 1 });
      }
    }
    session.check("cuStreamSynchronize", functions.cuStreamSynchronize(stream));
    return fastest(session, runs);
  } finally {
    for (const event of events) functions.cuEventDestroy_v2(event);
    if (stream !== session.stream) functions.cuStreamDestroy_v2(stream);
  }
}

/** Events round `count` runs of an algorithm. */
interface TimedRun {
  readonly algorithm: LtAlgorithm;
  readonly start: number;
  readonly end: number;
  readonly count: number;
}

/** The candidate whose best run is shortest; the library's order decides between equals. */
function fastest(session: CudaSession, runs: readonly TimedRun[]): TimedChoice | undefined {
  let best: TimedChoice | undefined;
  for (const { algorithm, start, end, count } of runs) {
    const microseconds = (session.elapsedMs(start, end) * 1000) / count;
    if (best === undefined || microseconds < best.microseconds) best = { algorithm, microseconds };
  }
  return best;
}
