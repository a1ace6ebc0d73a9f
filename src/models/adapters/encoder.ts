/**
 * Encoders of P-tuning (Liu et al., "GPT Understands, Too", 2021): networks over a small table that make the virtual tokens' embeddings. In
 * the shapes of PEFT (three linear layers with ReLU; a bidirectional LSTM with a head of two) and of NeMo (two layers with GELU). Only
 * what they give is needed for inference.
 */
import { activation, add, embedding, linear, multiply, stackRows } from "../../tensor/index.ts";
import type { Activation, Context, ParameterSpec, ParameterStore, Tensor } from "../../tensor/index.ts";

export interface EncoderShape {
  numTokens: number;
  /** C: width of what it gives. */
  width: number;
  hidden: number;
  /** Of the LSTM. */
  numLayers: number;
  initStd: number;
}

/** A network from a table to (numTokens, C). */
export interface PromptEncoder {
  specs(shape: EncoderShape): ParameterSpec[];
  run(context: Context, store: ParameterStore, shape: EncoderShape): Tensor;
}

const tableName = "table.weight";
const zero = { kind: "constant", value: 0 } as const;

function matrix(name: string, [rows, columns]: readonly [number, number], std: number): ParameterSpec {
  return { name, shape: [rows, columns], init: { kind: "normal", std }, decays: true };
}

function layer(name: string, shape: readonly [number, number], std: number): ParameterSpec[] {
  return [
    matrix(`${name}.weight`, shape, std),
    { name: `${name}.bias`, shape: [shape[0]], init: zero, decays: false },
  ];
}

function applyLayer(
  context: Context,
  x: Tensor,
  { store, name }: { store: ParameterStore; name: string },
): Tensor {
  return linear(context, x, { weight: store.get(`${name}.weight`), bias: store.get(`${name}.bias`) });
}

/** Rows `first` .. of the table, in order; the gradient goes to the table. */
function tableRows(context: Context, store: ParameterStore, tokens: readonly number[]): Tensor {
  return embedding(context, context.tensor(tokens, [tokens.length], "i32"), store.get(tableName));
}

const counted = (length: number): number[] => Array.from({ length }, (_, i) => i);

/** Linear layers with an activation between. */
function perceptron(sizes: (shape: EncoderShape) => readonly number[], between: Activation): PromptEncoder {
  return {
    specs: (shape) => {
      const widths = sizes(shape);
      return [
        matrix(tableName, [shape.numTokens, widths[0]], shape.initStd),
        ...widths.slice(1).flatMap((out, i) => layer(`mlp.${i}`, [out, widths[i]], shape.initStd)),
      ];
    },
    run: (context, store, shape) => {
      const numLayers = sizes(shape).length - 1;
      let x = tableRows(context, store, counted(shape.numTokens));
      for (let i = 0; i < numLayers; i++) {
        x = applyLayer(context, x, { store, name: `mlp.${i}` });
        if (i < numLayers - 1) x = activation(context, x, between);
      }
      return x;
    },
  };
}

const gates = ["input", "forget", "cell", "output"] as const;
type Gate = (typeof gates)[number];
const directions = ["forward", "backward"] as const;
type Direction = (typeof directions)[number];

/** Names of one direction of one layer; `part` is the direction of the layer below that an input comes from. */
const recurrent = (level: number, direction: Direction, gate: Gate): string =>
  `lstm.${level}.${direction}.${gate}`;

function lstmSpecs(shape: EncoderShape): ParameterSpec[] {
  const { width, hidden, numLayers, initStd } = shape;
  return counted(numLayers).flatMap((level) =>
    directions.flatMap((direction) =>
      gates.flatMap((gate) => {
        const name = recurrent(level, direction, gate);
        const inputs =
          level === 0
            ? [matrix(`${name}.below.weight`, [hidden, width], initStd)]
            : directions.map((part) => matrix(`${name}.${part}.weight`, [hidden, hidden], initStd));
        return [...inputs, ...layer(`${name}.before`, [hidden, hidden], initStd)];
      }),
    ),
  );
}

/** What a step of a layer reads: the table's row, or both directions of the layer below. */
type StepInput = Readonly<Partial<Record<Direction | "below", Tensor>>>;

/** One direction over all steps, in their order (Hochreiter and Schmidhuber, 1997). */
function runDirection(
  context: Context,
  store: ParameterStore,
  {
    level,
    direction,
    inputs,
    hidden,
  }: { level: number; direction: Direction; inputs: readonly StepInput[]; hidden: number },
): Tensor[] {
  const { dtype } = store.get(tableName);
  let state = context.full([1, hidden], dtype, 0);
  let cell = context.full([1, hidden], dtype, 0);
  const steps = counted(inputs.length);
  const outputs = new Map<number, Tensor>();
  for (const step of direction === "forward" ? steps : steps.toReversed()) {
    const gate = (name: Gate): Tensor => {
      const prefix = recurrent(level, direction, name);
      let sum = applyLayer(context, state, { store, name: `${prefix}.before` });
      for (const [part, input] of Object.entries(inputs[step]))
        sum = add(context, sum, linear(context, input, { weight: store.get(`${prefix}.${part}.weight`) }));
      return activation(context, sum, name === "cell" ? "tanh" : "sigmoid");
    };
    const [input, forget, candidate, output] = gates.map(gate);
    cell = add(context, multiply(context, forget, cell), multiply(context, input, candidate));
    state = multiply(context, output, activation(context, cell, "tanh"));
    outputs.set(step, state);
  }
  return steps.flatMap((step) => outputs.get(step) ?? []);
}

const lstm: PromptEncoder = {
  specs: (shape) => {
    const { numTokens, width, hidden, initStd } = shape;
    return [
      matrix(tableName, [numTokens, width], initStd),
      ...lstmSpecs(shape),
      ...directions.map((part) => matrix(`head.${part}.weight`, [2 * hidden, hidden], initStd)),
      { name: "head.bias", shape: [2 * hidden], init: zero, decays: false },
      ...layer("head.out", [width, 2 * hidden], initStd),
    ];
  },
  run: (context, store, { numTokens, hidden, numLayers }) => {
    let inputs: StepInput[] = counted(numTokens).map((token) => ({
      below: tableRows(context, store, [token]),
    }));
    for (let level = 0; level < numLayers; level++) {
      const [forward, backward] = directions.map((direction) =>
        runDirection(context, store, { level, direction, inputs, hidden }),
      );
      inputs = counted(numTokens).map((step) => ({ forward: forward[step], backward: backward[step] }));
    }
    const stacked = (part: Direction): Tensor =>
      stackRows(
        context,
        inputs.flatMap((input) => input[part] ?? []),
      );
    const first = linear(context, stacked("forward"), {
      weight: store.get("head.forward.weight"),
      bias: store.get("head.bias"),
    });
    const second = linear(context, stacked("backward"), { weight: store.get("head.backward.weight") });
    const active = activation(context, add(context, first, second), "relu");
    return applyLayer(context, active, { store, name: "head.out" });
  },
};

export const promptEncoders = {
  mlp: perceptron(({ width, hidden }) => [width, hidden, hidden, width], "relu"),
  "mlp-gelu": perceptron(({ width, hidden }) => [hidden, hidden, width], "gelu-erf"),
  lstm,
} as const satisfies Readonly<Record<string, PromptEncoder>>;
