import { expect, it } from "vitest";
import * as errors from "./errors.ts";
import { describeFailure, failureError } from "./failure.ts";

const classes = Object.values(errors).filter(
  (value): value is typeof errors.NautilusError =>
    typeof value === "function" && value.prototype instanceof errors.NautilusError,
);

it("every class of errors comes back from another thread as it went", () => {
  expect(classes.length).toBeGreaterThan(10);
  for (const Class of classes) {
    const error = new Class("part", "expected one, got two", { hint: "try three", fields: { path: "x" } });
    const back = failureError(structuredClone(describeFailure(error, "elsewhere")));
    expect(back).toBeInstanceOf(Class);
    expect(back.message).toBe("[part] expected one, got two (try three)");
    expect(back).toMatchObject({
      name: Class.name,
      code: error.code,
      exitCode: error.exitCode,
      fields: { path: "x" },
    });
  }
});

it("a fault of ours stays one", () => {
  const back = failureError(describeFailure(new TypeError("x is not a function"), "data"));
  expect(back).toBeInstanceOf(errors.InvariantError);
  expect(back.message).toContain("a data worker failed: x is not a function");
});
