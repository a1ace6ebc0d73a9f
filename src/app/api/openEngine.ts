/** Opens a model as an engine in this thread: device, weights, tokenizer, and a cache as large as the memory allows. */
import { ConfigError } from "../../base/index.ts";
import { openDevice, quantisedFormats } from "../../device/index.ts";
import type { Device, DeviceKind, QuantisedFormat } from "../../device/index.ts";
import { createEngine, defaultBlockSize, StackedAdapters } from "../../infer/index.ts";
import type { Engine } from "../../infer/index.ts";
import { cacheBytesPerToken, cacheFormats } from "../../models/index.ts";
import type { Adapter, CacheFormat, Decoder } from "../../models/index.ts";
import { Context } from "../../tensor/index.ts";
import type { Tokenizer } from "../../text/index.ts";
import { attachAdapter } from "../runs/adapter/adapter.ts";
import { endTokens, openModel } from "../runs/openModel.ts";

export interface EngineSettings {
  /** A run, one of its checkpoints, or a model in any supported format. */
  model: string;
  /** Where to compute; default "auto". */
  device?: "auto" | DeviceKind | undefined;
  /** CPU threads. */
  threads?: number | undefined;
  /** dtype of the weights; by default what the checkpoint has. */
  precision?: "f32" | "bf16" | undefined;
  /** Holds the blocks' matrices in 8 or 4 bits; with fp8 their products' inputs too. */
  quantise?: QuantisedFormat | undefined;
  /** A tokenizer's file or folder, for checkpoints that hold none. */
  tokenizer?: string | undefined;
  /**
   * On the CPU: takes weights from where their files have them, without a copy. The files must stay as they are while the model is open.
   * Default true.
   */
  mmap?: boolean | undefined;
  /** A tuned adapter that everything goes through: its folder, or a tuning run. */
  adapter?: string | undefined;
  /** Longest prompt and answer together; by default the model's. */
  maxContext?: number | undefined;
  /** Room for so many LoRA adapters at once, chosen by request. Default 0. */
  maxAdapters?: number | undefined;
  /** Highest rank of an adapter. Default 16. */
  maxAdapterRank?: number | undefined;
  /** Adapter folders by name, loaded now. */
  adapters?: Readonly<Record<string, string>> | undefined;
  /** Tokens of context that the cache holds, all sequences together; by default what memory allows, on the CPU at most 1 GiB. */
  cacheTokens?: number | undefined;
  /** What it holds keys and values as: the model's dtype ("auto", default), or 8 bits: room for twice the tokens of bf16. */
  kvCache?: CacheFormat | undefined;
  blockSize?: number | undefined;
  /** Sequences that run at once. Default 256. */
  maxSequences?: number | undefined;
  /** Rows of a step. Default 2048, 4096 where `favours` is "rate"; 512 on the CPU, where a step is long. */
  maxStepRows?: number | undefined;
  /** Whether somebody waits for single tokens (default), or for the whole of many requests. */
  favours?: "latency" | "rate" | undefined;
  /** Finds prompts in the cache. Default true. */
  reusesPrefixes?: boolean | undefined;
  /** Prepares now (graphs of all batch sizes, constrained output) what the first requests would wait for. Default false. */
  warmsUp?: boolean | undefined;
}

export interface OpenEngine extends AsyncDisposable {
  /** What was opened: a folder or a file. */
  readonly path: string;
  /** Where the tokenizer's files and chat templates are. */
  readonly folder: string;
  readonly engine: Engine;
  readonly tokenizer: Tokenizer;
}

/** Share of the memory that is left after the weights, for the cache: working memory needs some. */
const cacheShare = 0.8;
/** On the CPU memory is everybody's: a small share of it, and no more than this unasked. */
const cpuCacheShare = 0.25;
const mostCpuCacheBytes = 2 ** 30;

/**
 * The device is closed with the engine; one given as `on` stays its owner's. Throws CheckpointError, ConfigError, TokenizerError,
 * DeviceError, OutOfMemoryError.
 */
export async function openEngine(settings: EngineSettings & { on?: Device }): Promise<OpenEngine> {
  expectKnownFormats(settings);
  const { on, device: kind = "auto", threads } = settings;
  const device = on ?? (await openDevice({ kind, threads }));
  const closeDevice = (): void => {
    if (on === undefined) device.dispose();
  };
  try {
    const context = new Context(device);
    const model = await openModel(context, settings.model, { ...settings, mmap: settings.mmap ?? true });
    let adapter: Adapter | undefined;
    let adapters: StackedAdapters | undefined;
    try {
      adapters = adapterRoom(context, model.decoder, settings);
      for (const [name, folder] of Object.entries(settings.adapters ?? {}))
        await adapters?.load(name, folder);
      if (settings.adapter !== undefined) adapter = attachAdapter(context, model, settings.adapter);
      const engine = createEngine(context, model.decoder, {
        adapters,
        tokenizer: model.tokenizer,
        endTokens: endTokens(model.folder, model.tokenizer),
        cacheTokens: settings.cacheTokens ?? affordableTokens(device, model.decoder, settings),
        kvCache: settings.kvCache,
        maxContext: settings.maxContext,
        blockSize: settings.blockSize,
        maxSequences: settings.maxSequences,
        maxStepRows: settings.maxStepRows ?? defaultStepRows(device, settings),
        reusesPrefixes: settings.reusesPrefixes,
        numVirtualTokens: adapter?.numVirtualTokens,
        warmsUp: settings.warmsUp,
        release: () => {
          adapters?.dispose();
          adapter?.dispose();
          model[Symbol.dispose]();
          closeDevice();
        },
      });
      const { path, folder, tokenizer } = model;
      return { path, folder, tokenizer, engine, [Symbol.asyncDispose]: () => engine[Symbol.asyncDispose]() };
    } catch (error) {
      adapters?.dispose();
      adapter?.dispose();
      model[Symbol.dispose]();
      throw error;
    }
  } catch (error) {
    closeDevice();
    throw error;
  }
}

/** Before anything is loaded: programs without types, and settings out of files, may name what there is not. Throws ConfigError. */
function expectKnownFormats({ precision, quantise, kvCache }: EngineSettings): void {
  const expectOneOf = (name: string, value: string | undefined, known: readonly string[]): void => {
    if (value !== undefined && !known.includes(value))
      throw new ConfigError("engine", `expected ${name} to be one of ${known.join(", ")}, got '${value}'`);
  };
  expectOneOf("precision", precision, ["f32", "bf16"]);
  expectOneOf("quantise", quantise, quantisedFormats);
  expectOneOf("kvCache", kvCache, cacheFormats);
}

function defaultStepRows({ kind }: Device, { favours = "latency" }: EngineSettings): number {
  if (kind !== "cuda") return 512;
  return favours === "rate" ? 4096 : 2048;
}

/** Room for adapters where any are wanted. Throws ConfigError, OutOfMemoryError. */
function adapterRoom(
  context: Context,
  decoder: Decoder,
  { maxAdapters = 0, maxAdapterRank = 16, adapters = {}, adapter }: EngineSettings,
): StackedAdapters | undefined {
  const numSlots = Math.max(maxAdapters, Object.keys(adapters).length);
  if (numSlots > 0 && adapter !== undefined) {
    throw new ConfigError("engine", "expected one adapter for everything or several by name, got both", {
      hint: "load that one by name too",
    });
  }
  return numSlots === 0
    ? undefined
    : new StackedAdapters(context, decoder, { numSlots, maxRank: maxAdapterRank });
}

/** Tokens that fit what memory is left, no more than all sequences can use, and at least one whole context. */
function affordableTokens(device: Device, decoder: Decoder, settings: EngineSettings): number {
  const { maxSequences = 256, blockSize = defaultBlockSize } = settings;
  const maxContext = Math.min(settings.maxContext ?? Infinity, decoder.config.maxPositions);
  const { freeBytes = 2 ** 30, mappedBytes = 0 } = device.memory();
  // The system counts files that lie in memory as free: taking their place would have the weights read anew at every step.
  const cpuBytes = Math.max(0, freeBytes - mappedBytes);
  const cacheBytes =
    device.kind === "cuda" ? cacheShare * freeBytes : Math.min(mostCpuCacheBytes, cpuCacheShare * cpuBytes);
  const bytesPerToken = cacheBytesPerToken(decoder.config, decoder.dtype, settings.kvCache);
  const affordable = Math.floor(cacheBytes / bytesPerToken);
  const wanted = maxSequences * maxContext;
  const onePlace = Math.ceil(maxContext / blockSize) * blockSize;
  return Math.max(onePlace, Math.min(affordable, wanted));
}
