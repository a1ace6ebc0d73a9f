/** Prints why tests were skipped, each reason once, and one closing line that programs can read: `tests: N passed, N failed, N skipped`. */
import type { Reporter, TestModule } from "vitest/node";

const numNamesShown = 3;

export default class ClosingLineReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    let numPassed = 0;
    let numFailed = 0;
    const skipped = new Map<string, string[]>();
    for (const module of modules) {
      if (module.errors().length > 0) numFailed++;
      for (const test of module.children.allTests()) {
        const result = test.result();
        if (result.state === "passed") numPassed++;
        else if (result.state === "failed") numFailed++;
        else {
          const reason = (result.state === "skipped" ? result.note : undefined) ?? "filtered out";
          skipped.set(reason, [...(skipped.get(reason) ?? []), test.fullName]);
        }
      }
    }
    for (const [reason, names] of skipped) {
      const more = names.length > numNamesShown ? `, and ${names.length - numNamesShown} more` : "";
      process.stdout.write(
        `skipped ${names.length}: ${reason}\n  ${names.slice(0, numNamesShown).join(", ")}${more}\n`,
      );
    }
    const numSkipped = [...skipped.values()].reduce((total, names) => total + names.length, 0);
    process.stdout.write(`tests: ${numPassed} passed, ${numFailed} failed, ${numSkipped} skipped\n`);
  }
}
