/** What a server may be told, with defaults for one machine: bound to this machine alone, nothing open to strangers. */
import { z } from "zod";
import { parseConfig } from "../../base/index.ts";

const mebibyte = 1024 * 1024;
const milliseconds = z.int().positive();

export const serverOptionsSchema = z.strictObject({
  host: z.string().min(1).default("127.0.0.1"),
  /** 0: any free one. */
  port: z.int().min(0).max(65535).default(8000),
  /** Of the gRPC service; undefined: none is opened. 0: any free one. */
  grpcPort: z.int().min(0).max(65535).optional(),
  /** Any of them is let in; none: everybody is. */
  apiKeys: z.array(z.string().min(1)).default([]),
  /** Origins whose pages may call from a browser; "*": all. None: CORS is off. */
  corsOrigins: z.array(z.string().min(1)).default([]),
  bodyLimitBytes: z
    .int()
    .positive()
    .default(32 * mebibyte),
  /** From the arrival of a request to its last token, waiting included. */
  requestTimeoutMs: milliseconds.default(600_000),
  /** For a request's headers, and for all of it, to arrive. */
  headersTimeoutMs: milliseconds.default(10_000),
  receiveTimeoutMs: milliseconds.default(120_000),
  keepAliveTimeoutMs: milliseconds.default(65_000),
  /** Sequences that engines work on at a time; what is more waits here. */
  maxConcurrent: z.int().positive().default(512),
  /** Sequences that may wait; what is more is answered 429. */
  maxQueue: z.int().nonnegative().default(4096),
  /** Prompts times answers of one request. */
  maxSequencesPerRequest: z.int().positive().default(1024),
  /** How long running requests may go on once the server is asked to end. */
  drainTimeoutMs: milliseconds.default(30_000),
  /** PEM files: with them the server speaks TLS. */
  tls: z.strictObject({ certFile: z.string(), keyFile: z.string() }).optional(),
  log: z
    .strictObject({
      level: z.enum(["silent", "error", "warn", "info", "debug"]).default("info"),
      /** Prompts and answers belong to those who send them: off unless asked for. */
      prompts: z.boolean().default(false),
    })
    .prefault({}),
  /** Whether the playground is served at "/". */
  playground: z.boolean().default(true),
});

export type ServerOptionsInput = z.input<typeof serverOptionsSchema>;
export type ServerOptions = z.output<typeof serverOptionsSchema>;

/** Fills in and checks. Throws ConfigError. */
export function parseServerOptions(input: ServerOptionsInput): ServerOptions {
  return parseConfig("serve", serverOptionsSchema, input);
}
