/** Events of a request's sequences, gathered into the model's output tensors. */
import { RequestError } from "../../../base/index.ts";
import type { EngineEvent, TokenLogprobs } from "../../../infer/index.ts";
import type { Tokenizer } from "../../../text/index.ts";
import { type RequestedOutput, type Tensor, textTensor } from "../../kserve/index.ts";
import { type OutputName, isOutputName, outputNames } from "./modelSchema.ts";
import type { Plan } from "./plan.ts";

const component = "infer";

class SequenceAnswer {
  text = "";
  isEnded = false;
  /** Tokens of the answer but for one that ended it. */
  tokens: TokenLogprobs[] = [];
  promptTokens: readonly TokenLogprobs[] = [];

  add(event: EngineEvent): void {
    switch (event.type) {
      case "prompt":
        this.promptTokens = event.logprobs;
        break;
      case "token":
        this.text += event.text;
        this.tokens.push(event);
        break;
      case "end":
        this.text += event.text;
        this.isEnded = true;
        // The token that ends an answer is no part of its text, and so of none of its lists.
        if (event.reason === "end") this.tokens.pop();
        break;
    }
  }
}

export class Answer {
  readonly #plan: Plan;
  readonly #tokenizer: Tokenizer;
  readonly #names: ReadonlySet<OutputName>;
  readonly #sequences: readonly SequenceAnswer[];
  /** How much of each text has gone out, for outputs that go out in pieces. */
  readonly #numSent: number[];

  /** Throws RequestError for an output that no model has. */
  constructor(plan: Plan, outputs: readonly RequestedOutput[] | undefined) {
    this.#plan = plan;
    this.#tokenizer = plan.model.model.tokenizer;
    this.#names = outputs === undefined ? defaultOutputs(plan) : new Set(outputs.map(readOutputName));
    this.#sequences = plan.requests.map(() => new SequenceAnswer());
    this.#numSent = plan.requests.map(() => 0);
  }

  add(sequence: number, event: EngineEvent): void {
    this.#sequences[sequence].add(event);
  }

  get isEnded(): boolean {
    return this.#sequences.every(({ isEnded }) => isEnded);
  }

  /** Tokens that every sequence still running has: a step of the batch is over when it grows. */
  get numSteps(): number {
    return Math.min(...this.#sequences.map(({ isEnded, tokens }) => (isEnded ? Infinity : tokens.length)));
  }

  /** Whether a text has grown since the last part. */
  get hasNews(): boolean {
    return this.#sequences.some(({ text }, index) => text.length > this.#numSent[index]);
  }

  /** All outputs of the whole answer. */
  whole(): Tensor[] {
    return [...this.#texts((text) => text), ...this.#lists()];
  }

  /**
   * The outputs of a part: `outputs` and `sentences` are the text until now, as NeMo streams; `text_output` is the new piece, as
   * TensorRT-LLM and vLLM stream. The last part has the lists too.
   */
  part(isLast: boolean): Tensor[] {
    const tensors = this.#texts((text, index) => text.slice(this.#numSent[index]));
    for (const [index, { text }] of this.#sequences.entries()) this.#numSent[index] = text.length;
    return isLast ? [...tensors, ...this.#lists()] : tensors;
  }

  #texts(pieceOf: (text: string, index: number) => string): Tensor[] {
    const { wanted, prompts, shape } = this.#plan;
    const whole = this.#sequences.map(({ text }, index) => (wanted.echo ? prompts[index] + text : text));
    const pieces = this.#sequences.map(({ text }, index) => {
      const isFirst = this.#numSent[index] === 0;
      return (wanted.echo && isFirst ? prompts[index] : "") + pieceOf(text, index);
    });
    const named = [
      ["outputs", whole],
      ["sentences", whole],
      ["text_output", pieces],
    ] as const;
    return named.flatMap(([name, texts]) => (this.#names.has(name) ? [textTensor(name, shape, texts)] : []));
  }

  #lists(): Tensor[] {
    const { wanted } = this.#plan;
    const tensors: Tensor[] = [];
    if (wanted.numJsonLogProbs !== undefined)
      tensors.push(this.#jsonLogProbs("log_probs", ({ tokens }) => tokens));
    else if (wanted.logProbs) tensors.push(this.#logProbs());
    if (wanted.numTop > 0) tensors.push(this.#topLogProbs(wanted.numTop));
    if (wanted.numJsonPromptLogProbs !== undefined)
      tensors.push(this.#jsonLogProbs("prompt_log_probs", ({ promptTokens }) => promptTokens));
    for (const name of wanted.generationLogits) tensors.push(this.#generationLogits(name));
    if (wanted.contextLogits) tensors.push(this.#contextLogits());
    return tensors.filter(({ name }) => isOutputName(name) && this.#names.has(name));
  }

  /** Tokens that lists speak of: the prompt's too where it is echoed, but for its first, which has no probability. */
  #listed({ tokens, promptTokens }: SequenceAnswer): readonly TokenLogprobs[] {
    return this.#plan.wanted.echo ? [...promptTokens, ...tokens] : tokens;
  }

  /** FP32 [N, longest]; shorter rows end in zeros, as NeMo pads them. */
  #logProbs(): Tensor {
    const rows = this.#sequences.map((sequence) => this.#listed(sequence));
    const longest = Math.max(1, ...rows.map(({ length }) => length));
    const data = new Float32Array(rows.length * longest);
    for (const [row, tokens] of rows.entries())
      for (const [i, { logprob }] of tokens.entries()) data[row * longest + i] = logprob;
    return { name: "log_probs", datatype: "FP32", shape: [rows.length, longest], data };
  }

  /** BYTES [N, 1]: for each prompt a JSON list of objects, one a token, of the text of likely tokens and their log-probabilities. */
  #topLogProbs(numTop: number): Tensor {
    const texts = this.#sequences.map((sequence) =>
      JSON.stringify(this.#listed(sequence).map((token) => this.#likely(token, numTop))),
    );
    return textTensor("top_logprobs", [texts.length, 1], texts);
  }

  /** BYTES [N, longest]: for each token a JSON object; shorter rows end in empty strings. */
  #jsonLogProbs(
    name: "log_probs" | "prompt_log_probs",
    tokensOf: (sequence: SequenceAnswer) => readonly TokenLogprobs[],
  ): Tensor {
    const rows = this.#sequences.map(tokensOf);
    const longest = Math.max(1, ...rows.map(({ length }) => length));
    const { wanted } = this.#plan;
    const numTop = (name === "log_probs" ? wanted.numJsonLogProbs : wanted.numJsonPromptLogProbs) ?? 0;
    const texts = rows.flatMap((tokens) =>
      Array.from({ length: longest }, (_, i) =>
        i < tokens.length ? JSON.stringify(this.#likely(tokens[i], numTop)) : "",
      ),
    );
    return textTensor(name, [rows.length, longest], texts);
  }

  /** The drawn token and `numTop` likely ones; one text may be several tokens', and then the likeliest stands. */
  #likely({ token, logprob, mostLikely = [] }: TokenLogprobs, numTop: number): Record<string, number> {
    const likely: Record<string, number> = {};
    for (const other of [...mostLikely.slice(0, numTop), { token, logprob }]) {
      const text = this.#tokenizer.decode([other.token], { specialTokens: "show", startsText: false });
      likely[text] ??= other.logprob;
    }
    return likely;
  }

  /** FP32 [N, 1, longest, V]: rows are normalised logits, that is, log-probabilities of all tokens; shorter answers end in zeros. */
  #generationLogits(name: OutputName): Tensor {
    const rows = this.#sequences.map(({ tokens }) => tokens);
    const { data, longest, width } = this.#distributions(rows);
    const isNemo = name === "generation_logits";
    const shape = isNemo ? [rows.length, 1, longest, width] : [rows.length, longest, width];
    return { name, datatype: "FP32", shape, data };
  }

  /** FP32 [N, longest prompt, V]: what follows each of the prompt's tokens; the last row is the first drawn token's. */
  #contextLogits(): Tensor {
    const rows = this.#sequences.map(({ promptTokens, tokens }) => [...promptTokens, ...tokens.slice(0, 1)]);
    const { data, longest, width } = this.#distributions(rows);
    return { name: "context_logits", datatype: "FP32", shape: [rows.length, longest, width], data };
  }

  #distributions(rows: readonly (readonly TokenLogprobs[])[]) {
    const width = this.#plan.model.model.engine.info.vocabSize;
    const longest = Math.max(1, ...rows.map(({ length }) => length));
    const data = new Float32Array(rows.length * longest * width);
    for (const [row, tokens] of rows.entries()) {
      for (const [i, { mostLikely = [] }] of tokens.entries()) {
        const start = (row * longest + i) * width;
        for (const { token, logprob } of mostLikely) data[start + token] = logprob;
      }
    }
    return { data, longest, width };
  }
}

function readOutputName({ name }: RequestedOutput): OutputName {
  if (isOutputName(name)) return name;
  throw new RequestError(component, `expected an output of the model, got '${name.slice(0, 100)}'`, {
    hint: `outputs: ${outputNames.join(", ")}`,
  });
}

/** One text, and whatever was asked to be computed. */
function defaultOutputs({ mainOutput }: Plan): ReadonlySet<OutputName> {
  const texts = new Set(["outputs", "sentences", "text_output"]);
  return new Set(outputNames.filter(isOutputName).filter((name) => !texts.has(name) || name === mainOutput));
}
