/**
 * Every differentiable operator against directional finite differences in float64 on the reference backend: the derivative
 * along a random direction, taken from the tape, must equal (f(x + h d) - f(x - h d)) / 2h.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { RandomStream } from "../../src/base/index.ts";
import type { Shape } from "../../src/base/index.ts";
import { openDevice } from "../../src/device/index.ts";
import type { Device } from "../../src/device/index.ts";
import {
  activation,
  add,
  Context,
  embedding,
  dropout,
  gatedActivation,
  gatherRows,
  languageModelLoss,
  linear,
  lowRankLinear,
  multiply,
  normalise,
  ParameterStore,
  promptEmbedding,
  recomputed,
  rotaryTable,
  rowIndex,
  scaleColumns,
  selfAttention,
  Tape,
  tokenLosses,
  watch,
} from "../../src/tensor/index.ts";
import type { Parameter, RecomputePolicy, Tensor } from "../../src/tensor/index.ts";

let device: Device;
let context: Context;
let liveBytesBefore: number;

beforeAll(async () => {
  device = await openDevice({ kind: "reference" });
  context = new Context(device);
  liveBytesBefore = device.memory().liveBytes;
});
afterAll(() => {
  expect(device.memory().liveBytes).toBe(liveBytesBefore);
  device.dispose();
});

type Inputs = Readonly<Record<string, Parameter>>;

interface GradientCase {
  name: string;
  /** Shapes of the inputs; all are differentiated. */
  inputs: Readonly<Record<string, Shape>>;
  run: (inputs: Inputs) => Tensor;
  recompute?: RecomputePolicy;
}

const integers = (values: readonly number[]): Tensor => context.tensor(values, [values.length], "i32");

const heads = { numHeads: 4, numKvHeads: 2, headDim: 6 };

const cases: readonly GradientCase[] = [
  { name: "add", inputs: { a: [3, 5], b: [3, 5] }, run: ({ a, b }) => add(context, input(a), input(b)) },
  {
    name: "linear",
    inputs: { x: [7, 5], weight: [4, 5], bias: [4] },
    run: ({ x, weight, bias }) => linear(context, input(x), { weight, bias }),
  },
  {
    name: "embedding",
    inputs: { weight: [6, 3] },
    run: ({ weight }) => embedding(context, integers([1, 5, 1, 0]), weight),
  },
  ...(["layer-norm", "rms-norm"] as const).flatMap((kind) =>
    (["none", "norm-activation"] as const).map((recompute): GradientCase => ({
      name: `${kind} after a residual addition, recompute ${recompute}`,
      recompute,
      inputs: { x: [5, 8], addend: [5, 8], gain: [8], bias: [8], weight: [3, 8] },
      run: ({ x, addend, gain, bias, weight }) => {
        const weights = {
          kind,
          gain,
          bias: kind === "layer-norm" ? bias : undefined,
          eps: 1e-3,
          gainOffset: 1,
        } as const;
        const { y, sum } = normalise(context, input(x), { addend: input(addend), weights });
        const again = normalise(context, sum, { weights });
        return linear(context, add(context, y, again.y), { weight });
      },
    })),
  ),
  ...(["squared-relu", "gelu-tanh", "gelu-erf", "silu", "sigmoid", "tanh"] as const).map(
    (name): GradientCase => ({
      name,
      inputs: { x: [4, 6] },
      run: ({ x }) => activation(context, input(x), name),
    }),
  ),
  { name: "gated silu", inputs: { x: [4, 6] }, run: ({ x }) => gatedActivation(context, input(x), "silu") },
  {
    name: "squared-relu made again for the weight gradient",
    recompute: "norm-activation",
    inputs: { x: [4, 6], weight: [3, 6] },
    run: ({ x, weight }) => linear(context, activation(context, input(x), "squared-relu"), { weight }),
  },
  {
    name: "rotary attention with grouped heads",
    inputs: { qkv: [10, 48] },
    run: ({ qkv }) => attend(qkv, { numSequences: 2, sequenceLength: 5 }),
  },
  {
    name: "rotary attention over packed sequences",
    inputs: { qkv: [10, 48] },
    run: ({ qkv }) => attend(qkv, { numSequences: 3, sequenceLength: 6, cuSeqLens: integers([0, 3, 4, 10]) }),
  },
  {
    name: "rows gathered once, twice and never",
    inputs: { x: [4, 6] },
    run: ({ x }) => gatherRows(context, input(x), rowIndex(context, Int32Array.of(2, 0, 2, 3), 4)),
  },
  {
    name: "low-rank updates of parts of a linear layer",
    inputs: { x: [7, 5], a: [5, 5], first: [2, 2], second: [3, 3] },
    run: ({ x, a, first, second }) => {
      const parts = [
        { b: first, rankStart: 0, outputStart: 0, scale: 0.7 },
        { b: second, rankStart: 2, outputStart: 3, scale: -1.3 },
      ];
      return lowRankLinear(context, input(x), { weight: fixed(6, 5), update: { a, parts } });
    },
  },
  {
    name: "low-rank update of an input of its own",
    inputs: { x: [7, 5], z: [7, 5], a: [2, 5], b: [4, 2] },
    run: ({ x, z, a, b }) => {
      const parts = [{ b, rankStart: 0, outputStart: 0, scale: 2 }];
      return lowRankLinear(context, input(x), { weight: fixed(4, 5), update: { a, parts, input: input(z) } });
    },
  },
  {
    name: "scaled columns",
    inputs: { x: [6, 7], first: [2], second: [3] },
    run: ({ x, first, second }) =>
      scaleColumns(context, input(x), [
        { start: 0, scale: first, divisor: context.tensor([2, 3], [2], "f64") },
        { start: 4, scale: second },
      ]),
  },
  {
    name: "dropout",
    inputs: { x: [6, 7] },
    run: ({ x }) => dropout(context, input(x), { probability: 0.4, seed: 3, counter: 9 }),
  },
  {
    name: "product of elements",
    inputs: { a: [6, 7], b: [6, 7] },
    run: ({ a, b }) => multiply(context, input(a), input(b)),
  },
  {
    name: "virtual tokens from a parameter",
    inputs: { prompt: [3, 4] },
    run: ({ prompt }) =>
      promptEmbedding(context, integers([5, 1, 6, 7, 0, 6]), { weight: fixed(5, 4), prompt }),
  },
  {
    name: "virtual tokens from an encoder",
    inputs: { prompt: [3, 4] },
    run: ({ prompt }) =>
      promptEmbedding(context, integers([5, 1, 6, 7, 0, 6]), { weight: fixed(5, 4), prompt: input(prompt) }),
  },
  {
    name: "recomputed block",
    inputs: { x: [4, 5], weight: [5, 5] },
    run: ({ x, weight }) =>
      recomputed(context, [input(x)], ([inner]) => [
        activation(context, linear(context, inner, { weight }), "gelu-tanh"),
      ])[0],
  },
];

/** A frozen weight. */
function fixed(numRows: number, width: number): Tensor {
  return context.tensor(weightOf(numRows * width), [numRows, width], "f64");
}

function weightOf(length: number): Float64Array {
  return Float64Array.from({ length }, (_, i) => Math.cos(1 + i));
}

function attend(
  qkv: Parameter,
  layout: { numSequences: number; sequenceLength: number; cuSeqLens?: Tensor },
): Tensor {
  const rotary = rotaryTable(context, { maxPositions: 16, rotaryDim: 4, frequencies: [1, 0.1] });
  const positions = integers([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  return selfAttention(context, input(qkv), { ...layout, heads, rotary, positions });
}

/** An activation that gradients flow through to `parameter`: operators treat parameters as weights. */
function input(parameter: Parameter): Tensor {
  const zero = context.full(parameter.shape, parameter.dtype, 0);
  return add(context, context.adopt(parameter.alias()), zero);
}

function withInputs<Result>(
  shapes: GradientCase["inputs"],
  body: (store: ParameterStore, inputs: Inputs) => Result,
): Result {
  const specs = Object.entries(shapes).map(([name, shape]) => ({
    name,
    shape,
    decays: false,
    init: { kind: "constant", value: 0 } as const,
  }));
  using store = new ParameterStore(device, specs, { dtype: "f64", gradientDtype: "f64" });
  return body(store, Object.fromEntries([...store].map((parameter) => [parameter.name, parameter])));
}

describe("gradients against finite differences", () => {
  it.each(cases)("$name", ({ inputs: shapes, run, recompute }) => {
    withInputs(shapes, (store, inputs) => {
      const random = new RandomStream(3);
      const normal = (length: number): Float64Array =>
        Float64Array.from({ length }, () => random.nextNormal());
      const values = new Map([...store].map((parameter) => [parameter, normal(parameter.numElements)]));
      const directions = new Map([...store].map((parameter) => [parameter, normal(parameter.numElements)]));
      const objective = (y: Tensor): number => {
        const values = y.toArray();
        const weights = weightOf(values.length);
        return values.reduce((total, value, i) => total + value * weights[i], 0);
      };
      const at = (step: number): number => {
        for (const [parameter, start] of values) {
          const direction = directions.get(parameter) ?? [];
          parameter.set(start.map((value, i) => value + step * direction[i]));
        }
        return context.scope(() => objective(run(inputs)));
      };
      const h = 1e-5;
      const numeric = (at(h) - at(-h)) / (2 * h);

      at(0);
      using tape = new Tape(recompute);
      const watched = [...store].map((parameter) => ({ parameter, variable: watch(parameter) }));
      context.scope(() => {
        const y = context.withTape(tape, () => run(inputs));
        tape.backward(context, [
          { tensor: y, gradient: context.tensor(weightOf(y.numElements), y.shape, "f64") },
        ]);
      });
      let analytic = 0;
      for (const { parameter, variable } of watched) {
        const parts = [
          parameter.hasGradient ? parameter.gradient?.toArray() : undefined,
          variable.gradient?.toArray(),
        ];
        for (const part of parts)
          part?.forEach((value, i) => (analytic += value * (directions.get(parameter)?.[i] ?? 0)));
        variable.dispose();
      }
      expect(Math.abs(analytic - numeric)).toBeLessThan(1e-7 * Math.max(1, Math.abs(numeric)));
    });
  });

  it("head and cross-entropy, with ignored rows and several chunks", () => {
    withInputs({ hidden: [7, 4], weight: [9, 4] }, (store, inputs) => {
      const random = new RandomStream(5);
      const all = [...store];
      const start = all.map((parameter) =>
        Float64Array.from({ length: parameter.numElements }, () => random.nextNormal()),
      );
      const direction = all.map((parameter) =>
        Float64Array.from({ length: parameter.numElements }, () => random.nextNormal()),
      );
      const targets = [3, -1, 0, 8, 8, -1, 2];
      const scale = 0.37;
      const lossAt = (step: number): number => {
        for (const [index, parameter] of all.entries())
          parameter.set(start[index].map((value, i) => value + step * direction[index][i]));
        return context.scope(() => {
          const options = { weight: inputs["weight"], targets: integers(targets), chunkBytes: 9 * 8 * 3 };
          const losses = languageModelLoss(
            context,
            context.adopt(inputs["hidden"].alias()),
            options,
          ).toArray();
          expect(losses[1]).toBe(0);
          return losses.reduce((total, loss) => total + loss, 0) * scale;
        });
      };
      const h = 1e-3;
      // Losses are stored in f32: a wide step and a fourth-order formula keep the difference quotient exact enough.
      const numeric = (8 * (lossAt(h) - lossAt(-h)) - (lossAt(2 * h) - lossAt(-2 * h))) / (12 * h);
      lossAt(0);
      using tape = new Tape();
      const variable = watch(inputs["hidden"]);
      context.scope(() => {
        context.withTape(tape, () =>
          languageModelLoss(context, context.adopt(inputs["hidden"].alias()), {
            weight: inputs["weight"],
            targets: integers(targets),
            gradientScale: scale,
            chunkBytes: 9 * 8 * 3,
          }),
        );
        tape.backward(context);
      });
      const gradients = [variable.gradient?.toArray() ?? [], inputs["weight"].gradient?.toArray() ?? []];
      let analytic = 0;
      for (const [index, gradient] of gradients.entries())
        gradient.forEach((value, i) => (analytic += value * direction[index][i]));
      variable.dispose();
      expect(Math.abs(analytic - numeric)).toBeLessThan(2e-4);
    });
  });

  it.each(["trained", "frozen"])(
    "losses per token, weighted after they are known, under a head that is %s",
    (head) => {
      withInputs({ hidden: [7, 4], weight: [9, 4] }, (store, inputs) => {
        const all = [...store];
        const differentiated = head === "frozen" ? [inputs["hidden"]] : all;
        const random = new RandomStream(6);
        const draw = (length: number) => Float64Array.from({ length }, () => random.nextNormal());
        const start = all.map((parameter) => draw(parameter.numElements));
        const direction = all.map((parameter) =>
          differentiated.includes(parameter)
            ? draw(parameter.numElements)
            : new Float64Array(parameter.numElements),
        );
        const options = { targets: [3, -1, 0, 8, 8, -1, 2], chunkBytes: 9 * 8 * 3 };
        const factors = Float64Array.of(0.5, 9, -1, 0.25, 2, 9, -0.75);
        const place = (step: number): void => {
          for (const [index, parameter] of all.entries())
            parameter.set(start[index].map((value, i) => value + step * direction[index][i]));
        };
        const run = (): Tensor =>
          tokenLosses(context, context.adopt(inputs["hidden"].alias()), {
            ...options,
            weight: head === "frozen" ? context.adopt(inputs["weight"].alias()) : inputs["weight"],
            targets: integers(options.targets),
          });
        const lossAt = (step: number): number => {
          place(step);
          return context.scope(() =>
            run()
              .toArray()
              .reduce((total, loss, row) => total + loss * factors[row], 0),
          );
        };
        const h = 1e-3;
        const numeric = (8 * (lossAt(h) - lossAt(-h)) - (lossAt(2 * h) - lossAt(-2 * h))) / (12 * h);
        place(0);
        using tape = new Tape();
        using variable = watch(inputs["hidden"]);
        context.scope(() => {
          const losses = context.withTape(tape, run);
          tape.backward(context, [{ tensor: losses, gradient: context.tensor(factors, [7], "f32") }]);
        });
        let analytic = 0;
        expect(inputs["weight"].hasGradient).toBe(head === "trained");
        const gradients = [variable.gradient, head === "trained" ? inputs["weight"].gradient : undefined];
        for (const [index, gradient] of gradients.entries())
          gradient?.toArray().forEach((value, i) => (analytic += value * direction[index][i]));
        expect(Math.abs(analytic - numeric)).toBeLessThan(2e-4);
      });
    },
  );
});
