/** Options that several verbs share, and the parsing of their numbers. */
import { InvalidArgumentError, Option } from "commander";

/** Parses a whole number of at least `minimum`. */
export function wholeNumber(minimum: number) {
  return (text: string): number => {
    const value = Number(text);
    if (!Number.isSafeInteger(value) || value < minimum)
      throw new InvalidArgumentError(`expected a whole number of at least ${minimum}.`);
    return value;
  };
}

/** Parses a finite number of at least `minimum`. */
export function realNumber(minimum = -Infinity) {
  return (text: string): number => {
    const value = Number(text);
    if (text.trim() === "" || !Number.isFinite(value) || value < minimum) {
      throw new InvalidArgumentError(
        minimum === -Infinity ? "expected a number." : `expected a number of at least ${minimum}.`,
      );
    }
    return value;
  };
}

/** For options that may be given several times. */
export function collect(value: string, previous: readonly string[] | undefined): string[] {
  return [...(previous ?? []), value];
}

export const deviceOption = (): Option =>
  new Option("--device <kind>", "where to compute")
    .choices(["auto", "cpu", "cuda", "reference"])
    .default("auto");

export const threadsOption = (): Option =>
  new Option("--threads <count>", "CPU threads (default: the cores this process may use)").argParser(
    wholeNumber(1),
  );

export const jsonOption = (): Option => new Option("--json", "print JSON for programs");
