import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Admission } from "./admission.ts";
import { Refusal } from "./refusal.ts";
import { TokenRate } from "./tokenRate.ts";

describe("Admission", () => {
  it("lets in in order of arrival, never too many, and loses no slot, whoever gives up", async () => {
    const events = fc.array(fc.oneof(fc.constantFrom("enter" as const, "leave" as const), fc.nat(5)), {
      maxLength: 60,
    });
    await fc.assert(
      fc.asyncProperty(events, fc.integer({ min: 1, max: 4 }), async (steps, maxConcurrent) => {
        const admission = new Admission({ maxConcurrent, maxQueue: 100 });
        const held: Disposable[] = [];
        const entered: number[] = [];
        const controllers: AbortController[] = [];
        const enter = async (place: number): Promise<void> => {
          const slot = await admission.enter(controllers[place].signal).catch(() => undefined);
          if (slot === undefined) return;
          entered.push(place);
          held.push(slot);
        };
        const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
        for (const step of steps) {
          if (step === "enter") {
            const place = controllers.push(new AbortController()) - 1;
            void enter(place);
          } else if (step === "leave") held.shift()?.[Symbol.dispose]();
          else controllers.at(step)?.abort(new Refusal(499, "gone"));
          await settle();
          expect(admission.numHeld).toBe(held.length);
          expect(held.length).toBeLessThanOrEqual(maxConcurrent);
          if (admission.numWaiting > 0) expect(held.length).toBe(maxConcurrent);
        }
        expect(entered).toEqual(entered.toSorted((a, b) => a - b));
        for (const controller of controllers) controller.abort(new Refusal(499, "gone"));
        for (const slot of held) slot[Symbol.dispose]();
        await settle();
        expect([admission.numHeld, admission.numWaiting]).toEqual([0, 0]);
      }),
      { numRuns: 60 },
    );
  });
});

describe("TokenRate", () => {
  it("is the mean of the last ten seconds, and nothing once they are over", () => {
    const rate = new TokenRate();
    expect(rate.perSecond(1000)).toBe(0);
    for (let ms = 100_000; ms < 130_000; ms += 100) rate.add(5, ms);
    expect(rate.perSecond(129_999)).toBeCloseTo(50, 0);
    expect(rate.perSecond(200_000)).toBe(0);
  });
});
