/** Generated code in its process: verdicts, and the limits that hold it. */
import { spawnSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { runPython } from "../../src/eval/metrics/runPython.ts";

const hasPython = spawnSync("python3", ["-c", "import resource"]).status === 0;

describe("running generated code", () => {
  it.for([
    ["assert 2 + 2 == 4", 1],
    ["assert 2 + 2 == 5", 0],
    ["def broken(:", 0],
    ["import os\nassert os.listdir('.') == []\nassert 'HOME' not in os.environ", 1],
    ["x = bytearray(4 << 30)", 0],
    ["open('big', 'wb').write(b'0' * (8 << 20))", 0],
    ["while True: pass", 0],
  ] as const)("%j", ([program, verdict], test) => {
    test.skip(!hasPython, "Python 3 is not here");
    expect(runPython(program)).toBe(verdict);
  });

  it("says when there is no Python", () => {
    expect(() => runPython("pass", "no-such-python")).toThrow(/expected Python as 'no-such-python'/);
  });
});
