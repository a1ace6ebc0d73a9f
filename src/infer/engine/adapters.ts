/** The seam for adapters: a name becomes the index that a step's rows carry (`RunnerTask.adapter`). */
import { RequestError } from "../../base/index.ts";

export interface AdapterSlots {
  readonly names: readonly string[];
  /** Index from 1 of a loaded adapter. Throws RequestError. */
  indexOf(name: string): number;
  /** Tells an adapter from another that had its name before: what the prefix cache keeps apart. The name where absent. */
  saltOf?(name: string): string;
  /** Throws CheckpointError, RequestError. */
  load(name: string, folder: string): Promise<void>;
  unload(name: string): Promise<void>;
}

function refusal(name: string): RequestError {
  return new RequestError(
    "engine",
    `expected a model that takes adapters, got adapter '${name}' for one that does not`,
    { hint: "adapters are not available for this model" },
  );
}

/** Of a model that takes none. */
export const noAdapters: AdapterSlots = {
  names: [],
  indexOf(name) {
    throw refusal(name);
  },
  load: (name) => Promise.reject(refusal(name)),
  unload: (name) => Promise.reject(refusal(name)),
};
