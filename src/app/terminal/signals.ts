/** Ctrl-C and SIGTERM as an AbortSignal: the first asks to stop and save, a second ends the process at once. */
import { note } from "../../base/index.ts";

const interruptedExitCode = 130;

/** Aborts at the first signal, after printing `message`. */
export function stopSignal(message: string): { signal: AbortSignal } & Disposable {
  const controller = new AbortController();
  const onSignal = (): void => {
    if (controller.signal.aborted) process.exit(interruptedExitCode);
    note(`\n${message}`);
    controller.abort();
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  return {
    signal: controller.signal,
    [Symbol.dispose]: () => {
      process.off("SIGINT", onSignal);
      process.off("SIGTERM", onSignal);
    },
  };
}
