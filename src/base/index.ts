/** The ground floor: errors, dtypes, shapes, random numbers, strict configuration, files. Imports nothing of ours. */
export * from "./config.ts";
export * from "./dtype.ts";
export * from "./errors.ts";
export { type Failure, describeFailure, failureError } from "./failure.ts";
export * from "./files.ts";
export * from "./log.ts";
export * from "./random.ts";
export * from "./shape.ts";
export * from "./units.ts";
