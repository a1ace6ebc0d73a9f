/** Warnings and notes to the standard error stream; a program that embeds Nautilus replaces the sink. */
export type LogLevel = "note" | "warning";
export type LogSink = (level: LogLevel, message: string) => void;

let sink: LogSink = (level, message) =>
  process.stderr.write(level === "warning" ? `warning: ${message}\n` : `${message}\n`);

/** Replaces where messages go; gives back the sink that was in force. */
export function setLogSink(next: LogSink): LogSink {
  const previous = sink;
  sink = next;
  return previous;
}

export function warn(message: string): void {
  sink("warning", message);
}

export function note(message: string): void {
  sink("note", message);
}
