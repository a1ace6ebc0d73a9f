/** What the preparing thread and its workers say to each other. */
import type { Failure } from "../../base/index.ts";
import type { EncoderSpec } from "../encoder.ts";
import type { RawUnit } from "../sources/unit.ts";
import type { EncodedUnit } from "./encodeUnit.ts";

export interface WorkerStart {
  readonly encoder: EncoderSpec;
}

export interface WorkerRequest {
  readonly id: number;
  readonly unit: RawUnit;
}

/** A failure before the first request has id -1. */
export type WorkerReply =
  | { readonly id: number; readonly encoded: EncodedUnit }
  | { readonly id: number; readonly failure: Failure };
