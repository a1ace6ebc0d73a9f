/**
 * Runs of one product's algorithms on a stream, with events round them. Owns its events, and its stream while a graph is captured. Knows
 * nothing of which algorithm is better.
 */
import { decodeValues } from "../../base/index.ts";
import type { CublasLt, LtAlgorithm, LtDescriptors, LtProblem } from "./cublaslt.ts";
import type { LaunchContext } from "./launcher.ts";
import { NativeWords } from "./native.ts";
import type { Stretch, Stretches } from "./search.ts";
import type { CudaSession } from "./session.ts";

/** Columns of a result that are compared. */
const numComparedColumns = 32;

export interface TimerTools {
  readonly session: CudaSession;
  readonly library: Pick<CublasLt, "run" | "variants">;
  readonly context: LaunchContext;
}

export interface TimerRequest {
  readonly problem: LtProblem;
  readonly descriptors: LtDescriptors;
  readonly a: number;
  readonly b: number;
  /** May be overwritten. */
  readonly d: number;
  readonly beta: number;
  /** Holds what the algorithms need. */
  readonly workspace: number;
}

export class AlgorithmTimer implements Stretches, Disposable {
  readonly #tools: TimerTools;
  readonly #request: TimerRequest;
  readonly #stream: number;
  readonly #scalars = new NativeWords(1);
  readonly #algorithm = new NativeWords(8);
  readonly #events: number[] = [];

  constructor(tools: TimerTools, request: TimerRequest) {
    this.#tools = tools;
    this.#request = request;
    this.#scalars.f32[0] = 1;
    this.#scalars.f32[1] = request.beta;
    const { session, context } = tools;
    if (context.isCapturing) {
      const { out } = session.driver;
      session.check("cuStreamCreate", session.functions.cuStreamCreate(out.address, 1));
      this.#stream = out.word(0);
    } else this.#stream = session.stream;
  }

  runnable = (algorithms: readonly LtAlgorithm[]): LtAlgorithm[] =>
    algorithms.filter((algorithm) => {
      try {
        this.#run(algorithm);
        return true;
      } catch {
        // The library offers candidates that it then refuses; the others remain.
        return false;
      }
    });

  queue = (algorithm: LtAlgorithm, numRuns: number): Stretch => {
    const start = this.#mark();
    for (let run = 0; run < numRuns; run++) this.#run(algorithm);
    const end = this.#mark();
    return { millisecondsEach: () => this.#tools.session.elapsedMs(start, end) / numRuns };
  };

  wait = (): void => {
    const { session } = this.#tools;
    session.check("cuStreamSynchronize", session.functions.cuStreamSynchronize(this.#stream));
  };

  /** Compares some columns of both results, as results without what the product adds to. */
  agrees = (algorithm: LtAlgorithm, first: LtAlgorithm): boolean => {
    const [expected, got] = [this.#columnsOf(first), this.#columnsOf(algorithm)];
    return isSameProduct(expected, got);
  };

  fill(address: number, byteLength: number): void {
    const { session } = this.#tools;
    const status = session.functions.cuMemsetD8Async(address, 0, byteLength, this.#stream);
    session.check("cuMemsetD8Async", status);
  }

  [Symbol.dispose](): void {
    const { functions, stream } = this.#tools.session;
    for (const event of this.#events) functions.cuEventDestroy_v2(event);
    if (this.#stream !== stream) functions.cuStreamDestroy_v2(this.#stream);
  }

  #mark(): number {
    const { session } = this.#tools;
    const event = session.createEvent(true);
    this.#events.push(event);
    session.check("cuEventRecord", session.functions.cuEventRecord(event, this.#stream));
    return event;
  }

  #run({ bytes, workspaceBytes }: LtAlgorithm): void {
    const { descriptors, a, b, d, workspace } = this.#request;
    this.#algorithm.bytes.set(bytes);
    this.#tools.library.run(
      descriptors,
      { a, b, d, scalars: this.#scalars.address },
      { address: this.#algorithm.address, workspace, workspaceBytes, stream: this.#stream },
    );
  }

  #columnsOf(algorithm: LtAlgorithm): Float64Array {
    const { session } = this.#tools;
    const { problem, d } = this.#request;
    const { rows, columns, strideD, output } = problem;
    const beta = this.#scalars.f32[1];
    this.#scalars.f32[1] = 0;
    this.#run(algorithm);
    this.#scalars.f32[1] = beta;
    const elementBytes = output === "f32" ? 4 : 2;
    const columnBytes = rows * elementBytes;
    const count = Math.min(columns, numComparedColumns);
    const host = new NativeWords(Math.ceil((count * columnBytes) / 8));
    for (let index = 0; index < count; index++) {
      const column = count === 1 ? 0 : Math.round((index * (columns - 1)) / (count - 1));
      const status = session.functions.cuMemcpyDtoHAsync_v2(
        host.address + index * columnBytes,
        d + column * strideD * elementBytes,
        columnBytes,
        this.#stream,
      );
      session.check("cuMemcpyDtoHAsync", status);
    }
    this.wait();
    return decodeValues(output, host.bytes.subarray(0, count * columnBytes));
  }
}

/**
 * Whether two results differ by no more than the order of their sums and a rounding to bf16: 2^-7 of a value, and 2^-10 of the largest for
 * sums that cancel. What has no number in one has none in the other.
 */
export function isSameProduct(expected: Float64Array, got: Float64Array): boolean {
  const largest = expected.reduce((most, value) => (Math.abs(value) > most ? Math.abs(value) : most), 0);
  return expected.every((value, index) => {
    const other = got[index];
    if (!Number.isFinite(value)) return !Number.isFinite(other);
    return Math.abs(value - other) <= Math.abs(value) / 128 + largest / 1024;
  });
}
