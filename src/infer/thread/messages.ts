/** What goes between an engine in a worker thread and those who ask it. Both ends are ours, of one version. */
import type { Failure } from "../../base/index.ts";
import type { EngineEvent, EngineModelInfo, EngineRequest, EngineStatistics } from "../engine/contract.ts";

export type ToEngine =
  | { type: "generate"; id: number; request: EngineRequest }
  | { type: "abort"; id: number }
  | { type: "embed"; id: number; prompts: readonly (readonly number[])[]; pooling: "mean" | "last" }
  | { type: "load-adapter"; id: number; name: string; folder: string }
  | { type: "unload-adapter"; id: number; name: string }
  | { type: "close" };

export interface State {
  info: EngineModelInfo;
  statistics: EngineStatistics;
}

export type FromEngine =
  | { type: "ready"; state: State }
  /** The engine could not be opened. */
  | { type: "refused"; error: Failure }
  | { type: "state"; state: State }
  /** What all requests got since the last message, in order. */
  | { type: "events"; events: readonly { id: number; event: EngineEvent }[] }
  | { type: "done"; id: number; value: Float32Array[] | undefined }
  | { type: "failed"; id: number; error: Failure };
