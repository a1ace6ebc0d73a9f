/** The server's log: one JSON line a request, to standard error. Prompts and answers are never in it unless asked for. */
import { pino } from "pino";
import type { DestinationStream, Logger } from "pino";
import type { ServerOptions } from "./options.ts";

export type { Logger } from "pino";

export function createLogger(options: ServerOptions["log"], destination?: DestinationStream): Logger {
  return pino(
    {
      level: options.level,
      base: null,
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
    },
    destination ?? pino.destination({ dest: 2, sync: false }),
  );
}
