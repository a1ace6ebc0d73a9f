/**
 * Runs of one product's algorithms on a stream, with events round them. Owns its events, and its stream while a graph is captured. Knows
 * nothing of which algorithm is better.
 */
import type { CublasLt, LtAlgorithm, LtDescriptors } from "./cublaslt.ts";
import type { LaunchContext } from "./launcher.ts";
import { NativeWords } from "./native.ts";
import type { Stretch, Stretches } from "./search.ts";
import type { CudaSession } from "./session.ts";

export interface TimerTools {
  readonly session: CudaSession;
  readonly library: Pick<CublasLt, "run">;
  readonly context: LaunchContext;
}

export interface TimerRequest {
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
}
