/**
 * A captured CUDA graph: one launch replays everything that was queued between `begin` and `end`. Holds the memory that was
 * allocated meanwhile until it is disposed. Knows nothing of operators.
 */
import { DisposedError } from "../../base/index.ts";
import type { DeviceGraph } from "../contract.ts";
import type { CaptureScope, CudaMemory } from "./memory.ts";
import type { CudaSession } from "./session.ts";

/** Relaxed: kernels may be loaded and products timed on another stream while the compute stream is captured. */
const captureRelaxed = 2;

export class CudaGraph implements DeviceGraph {
  /** Kernels, copies and fills in the graph. */
  readonly numNodes: number;
  readonly #session: CudaSession;
  readonly #memory: CudaMemory;
  readonly #executable: number;
  readonly #scope: CaptureScope;
  readonly #onReplay: (queue: () => void) => void;
  #isDisposed = false;

  private constructor(
    session: CudaSession,
    memory: CudaMemory,
    parts: {
      executable: number;
      numNodes: number;
      scope: CaptureScope;
      onReplay: (queue: () => void) => void;
    },
  ) {
    this.#session = session;
    this.#memory = memory;
    this.#executable = parts.executable;
    this.#scope = parts.scope;
    this.#onReplay = parts.onReplay;
    this.numNodes = parts.numNodes;
  }

  /** Captures what `record` queues. `onReplay` runs each replay, for the profiler. */
  static capture(
    session: CudaSession,
    memory: CudaMemory,
    options: { record: () => void; onReplay: (queue: () => void) => void },
  ): CudaGraph {
    const { functions, stream } = session;
    session.synchronize();
    session.check("cuStreamBeginCapture", functions.cuStreamBeginCapture_v2(stream, captureRelaxed));
    const scope = memory.beginCapture();
    try {
      const { executable, numNodes } = finishCapture(session, memory, options.record);
      return new CudaGraph(session, memory, { executable, numNodes, scope, onReplay: options.onReplay });
    } catch (error) {
      memory.releaseScope(scope);
      throw error;
    }
  }

  replay(): void {
    if (this.#isDisposed) throw new DisposedError("cuda", "expected a live graph, got one after dispose");
    this.#session.activate();
    this.#onReplay(this.#launch);
  }

  readonly #launch = (): void => {
    const status = this.#session.functions.cuGraphLaunch(this.#executable, this.#session.stream);
    if (status !== 0) this.#session.check("cuGraphLaunch", status);
  };

  /** Waits for replays that are under way. */
  dispose(): void {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    this.#session.activate();
    this.#session.synchronize();
    this.#session.functions.cuGraphExecDestroy(this.#executable);
    this.#memory.releaseScope(this.#scope);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** Runs `record` in the capture that has begun and makes an executable graph of it. */
function finishCapture(
  session: CudaSession,
  memory: CudaMemory,
  record: () => void,
): { executable: number; numNodes: number } {
  const { functions, driver, stream } = session;
  const { out } = driver;
  try {
    record();
  } catch (error) {
    memory.endCapture();
    if (functions.cuStreamEndCapture(stream, out.address) === 0) functions.cuGraphDestroy(out.word(0));
    throw error;
  }
  memory.endCapture();
  session.check("cuStreamEndCapture", functions.cuStreamEndCapture(stream, out.address));
  const graph = out.word(0);
  try {
    session.check("cuGraphGetNodes", functions.cuGraphGetNodes(graph, 0, out.address));
    const numNodes = out.word(0);
    session.check("cuGraphInstantiate", functions.cuGraphInstantiateWithFlags(out.address, graph, 0));
    const executable = out.word(0);
    session.check("cuGraphUpload", functions.cuGraphUpload(executable, stream));
    return { executable, numNodes };
  } finally {
    functions.cuGraphDestroy(graph);
  }
}
