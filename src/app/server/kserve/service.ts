/**
 * The inference protocol over a server's models, whatever carries it: health, descriptions, repository, statistics, inference whole and
 * in parts. HTTP routes and the gRPC service are two doors to it.
 */
import { RequestError } from "../../../base/index.ts";
import {
  type InferRequest,
  type InferResponse,
  type Parameters,
  type Tensor,
  decodeJson,
} from "../../kserve/index.ts";
import { Refusal } from "../refusal.ts";
import type { RequestContext } from "../requestContext.ts";
import { runRequest } from "../runRequest.ts";
import { type ServerContext, resolveModel } from "../serverContext.ts";
import type { ResolvedModel } from "../servedModel.ts";
import { Answer } from "./answer.ts";
import { withBans } from "./bans.ts";
import { Inputs } from "./inputs.ts";
import {
  type ModelDescription,
  inputDatatypes,
  isInputName,
  modelConfig,
  modelMetadata,
} from "./modelSchema.ts";
import { type Plan, planRequest } from "./plan.ts";
import { InferStatistics } from "./statistics.ts";

/** A model under this ending is the same one, described as decoupled. */
export const streamingSuffix = ":streaming";
const onlyVersion = "1";

export interface InferTarget {
  name: string;
  /** Empty or undefined: any. */
  version?: string | undefined;
}

/** One of several answers to a request. */
export interface PartResponse {
  response: InferResponse;
  isLast: boolean;
}

export class InferenceService {
  readonly server: ServerContext;
  readonly #statistics = new InferStatistics();

  constructor(server: ServerContext) {
    this.server = server;
  }

  get isReady(): boolean {
    return !this.server.isDraining;
  }

  isModelReady(target: InferTarget): boolean {
    try {
      this.#describe(target);
    } catch (error) {
      if (error instanceof Refusal && error.status === 404) return false;
      throw error;
    }
    return this.isReady;
  }

  serverMetadata() {
    return {
      name: "nautilus",
      version: this.server.version,
      extensions: ["binary_tensor_data", "generate", "model_configuration", "model_repository", "statistics"],
    };
  }

  /** Throws a refusal (404) for a model or version that is not there. */
  modelMetadata(target: InferTarget) {
    return modelMetadata(this.#describe(target));
  }

  /** Throws a refusal (404) for a model or version that is not there. */
  modelConfig(target: InferTarget) {
    return modelConfig(this.#describe(target));
  }

  repositoryIndex() {
    const state = this.isReady ? "READY" : "UNAVAILABLE";
    const reason = this.isReady ? "" : "the server is ending";
    return this.#names().map((name) => ({ name, version: onlyVersion, state, reason }));
  }

  /** Models are chosen when the server starts: loading one that is there changes nothing. Throws a refusal (404, 501). */
  loadModel(name: string): void {
    this.#describe({ name });
  }

  unloadModel(name: string): void {
    this.#describe({ name });
    throw new Refusal(
      501,
      `expected models to stay as the server was started, got a request to unload '${name}'`,
    );
  }

  /** Of one model, or of all. Throws a refusal (404). */
  statistics(target?: InferTarget) {
    const names = target === undefined ? this.#names() : [this.#describe(target).name];
    return {
      model_stats: names.map((name) => {
        const { engine } = this.#resolve(name).model.model;
        return this.#statistics.of(name, engine.statistics().numSteps);
      }),
    };
  }

  /** Answers a request whole. Throws Refusal, RequestError, EngineFailedError. */
  async infer(context: RequestContext, target: InferTarget, request: InferRequest): Promise<InferResponse> {
    let response: InferResponse | undefined;
    for await (const part of this.#run(context, target, { request, isWhole: true })) response = part.response;
    if (response === undefined) throw new Refusal(500, "expected an answer of the engine, got none");
    return response;
  }

  /**
   * Answers in parts, the last one marked. The first comes when there is text; errors before it are thrown by the first step. Throws as
   * `infer` does.
   */
  inferParts(
    context: RequestContext,
    target: InferTarget,
    request: InferRequest,
  ): AsyncGenerator<PartResponse> {
    const wantsParts = readStreamFlag(request) ?? true;
    return this.#run(context, target, { request, isWhole: !wantsParts });
  }

  async *#run(
    context: RequestContext,
    target: InferTarget,
    { request, isWhole }: { request: InferRequest; isWhole: boolean },
  ): AsyncGenerator<PartResponse> {
    const { name } = this.#describe(target);
    let numPrompts = 0;
    let isAnswered = false;
    using _timer = deadlineOf(context, request.parameters);
    try {
      const plan = planRequest(this.#resolve(name).model, new Inputs(withParameters(request)));
      numPrompts = plan.prompts.length;
      if (this.server.options.log.prompts) context.facts.prompts = plan.prompts;
      for await (const { outputs, isLast } of this.#parts(context, plan, { request, isWhole })) {
        isAnswered = isLast;
        const { id } = request;
        yield {
          response: {
            modelName: name,
            modelVersion: onlyVersion,
            ...(id === undefined ? {} : { id }),
            outputs,
          },
          isLast,
        };
      }
    } finally {
      const { arrivedMs, facts } = context;
      const ms = performance.now() - arrivedMs;
      this.#statistics.record(name, { isAnswered, numPrompts, ms, queueMs: facts.queueMs ?? ms });
    }
  }

  async *#parts(
    context: RequestContext,
    plan: Plan,
    { request, isWhole }: { request: InferRequest; isWhole: boolean },
  ): AsyncGenerator<{ outputs: Tensor[]; isLast: boolean }> {
    const answer = new Answer(plan, request.outputs);
    const model = withBans(plan.model, plan.bans);
    let numSteps = 0;
    for await (const { sequence, event } of await runRequest(this.server, context, {
      model,
      requests: plan.requests,
    })) {
      answer.add(sequence, event);
      if (isWhole || answer.isEnded || answer.numSteps <= numSteps) continue;
      numSteps = answer.numSteps;
      if (answer.hasNews) yield { outputs: answer.part(false), isLast: false };
    }
    yield { outputs: isWhole ? answer.whole() : answer.part(true), isLast: true };
  }

  #names(): string[] {
    return this.server.models.list().flatMap(({ name, engine }) => {
      const own = [name, ...engine.info.adapters.map((adapter) => `${name}:${adapter}`)];
      return own.flatMap((known) => [known, `${known}${streamingSuffix}`]);
    });
  }

  #resolve(name: string): { model: ResolvedModel; isDecoupled: boolean } {
    const isDecoupled = name.endsWith(streamingSuffix) && this.server.models.resolve(name) === undefined;
    const known = isDecoupled ? name.slice(0, -streamingSuffix.length) : name;
    return { model: resolveModel(this.server, known), isDecoupled };
  }

  #describe({ name, version = "" }: InferTarget): ModelDescription {
    const { isDecoupled } = this.#resolve(name);
    if (version !== "" && version !== onlyVersion) {
      throw new Refusal(404, `expected version ${onlyVersion} of '${name}', got '${version.slice(0, 40)}'`);
    }
    return { name, maxBatchSize: this.server.options.maxSequencesPerRequest, isDecoupled };
  }
}

/** A BOOL input or a parameter may say that the answer is wanted whole. */
function readStreamFlag({ inputs, parameters }: InferRequest): boolean | undefined {
  for (const name of ["stream", "streaming"]) {
    const tensor = inputs.find((input) => input.name === name);
    if (tensor?.datatype === "BOOL") return Number(tensor.data[0] ?? 1) !== 0;
    const parameter = parameters[name];
    if (typeof parameter === "boolean") return parameter;
  }
  return undefined;
}

/** Inputs, and parameters that bear the name of one: some clients send their options so. */
function withParameters({ inputs, parameters }: InferRequest): Tensor[] {
  const given = new Set(inputs.map(({ name }) => name));
  const more = Object.entries(parameters).flatMap(([name, value]): Tensor[] => {
    if (!isInputName(name) || given.has(name)) return [];
    return [decodeJson({ name, datatype: inputDatatypes[name], shape: [1], data: [value] })];
  });
  return [...inputs, ...more];
}

/** The parameter `timeout`, in microseconds, ends a request in time. Throws RequestError for what is no number of them. */
function deadlineOf(context: RequestContext, { timeout }: Parameters): Disposable {
  if (timeout !== undefined && !(Number.isSafeInteger(Number(timeout)) && Number(timeout) >= 0))
    throw new RequestError("infer", `'timeout': expected microseconds, got ${String(timeout)}`);
  const ms = Number(timeout ?? 0) / 1000;
  const timer =
    ms === 0
      ? undefined
      : setTimeout(() => context.abort(new Refusal(504, `expected an answer within ${ms} ms, got none`)), ms);
  return { [Symbol.dispose]: () => clearTimeout(timer) };
}
