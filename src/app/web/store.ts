/** The page's state: signals, what changes them, and what of them this browser remembers. */
import { batch, effect, signal } from "@preact/signals";
import type { ServerInfo, ServerStatistics } from "../api/serverInfo.ts";
import { Client, ServerFailure } from "./client.ts";
import type { Message, Piece, Sampling } from "./client.ts";

export type Mode = "complete" | "chat";
export type Theme = "auto" | "light" | "dark";
export interface ChatTurn extends Message {
  /** Of answers made here. */
  pieces?: Piece[];
}
export interface Speed {
  numTokens: number;
  firstTokenMs: number;
  tokensPerSecond: number;
}

const storageKey = "nautilus-playground";
const mostRecent = 12;
const mostSamples = 120;

const defaultSampling: Sampling = {
  maxTokens: 128,
  temperature: 0.8,
  topP: 0.95,
  topK: 0,
  repetitionPenalty: 1,
  seed: "",
  stop: "",
};

interface Remembered {
  mode: Mode;
  theme: Theme;
  prompt: string;
  system: string;
  sampling: Sampling;
  recent: string[];
}

function remembered(): Partial<Remembered> {
  try {
    return JSON.parse(localStorage.getItem(storageKey) ?? "{}") as Partial<Remembered>;
  } catch {
    return {};
  }
}

export type Store = ReturnType<typeof createStore>;

type State = ReturnType<typeof createState>;

function createState(before: Partial<Remembered>) {
  return {
    info: signal<ServerInfo | undefined>(undefined),
    model: signal(""),
    mode: signal<Mode>(before.mode ?? "complete"),
    theme: signal<Theme>(before.theme ?? "auto"),
    prompt: signal(before.prompt ?? "The meaning of life is"),
    system: signal(before.system ?? ""),
    draft: signal(""),
    sampling: signal<Sampling>({ ...defaultSampling, ...before.sampling }),
    recent: signal<string[]>(before.recent ?? []),
    /** What the last completion continued, and how. */
    answered: signal(""),
    pieces: signal<Piece[]>([]),
    turns: signal<ChatTurn[]>([]),
    isRunning: signal(false),
    failure: signal<{ message: string; needsKey: boolean } | undefined>(undefined),
    speed: signal<Speed | undefined>(undefined),
    samples: signal<{ seconds: number; statistics: ServerStatistics }[]>([]),
  };
}

export function createStore() {
  const state = createState(remembered());
  effect(() => {
    const kept: Remembered = {
      mode: state.mode.value,
      theme: state.theme.value,
      prompt: state.prompt.value,
      system: state.system.value,
      sampling: state.sampling.value,
      recent: state.recent.value,
    };
    localStorage.setItem(storageKey, JSON.stringify(kept));
  });
  effect(() => {
    document.documentElement.dataset["theme"] = state.theme.value;
  });
  return { ...state, ...actionsOf(state, new Client()) };
}

function actionsOf(state: State, client: Client) {
  let running: AbortController | undefined;

  const report = (error: unknown): void => {
    if (error instanceof DOMException && error.name === "AbortError") return;
    state.failure.value = {
      message: error instanceof Error ? error.message : String(error),
      needsKey: error instanceof ServerFailure && error.status === 401,
    };
  };

  const load = async (): Promise<void> => {
    try {
      const info = await client.info();
      batch(() => {
        state.info.value = info;
        state.model.value ||= info.models[0]?.name ?? "";
        state.failure.value = undefined;
      });
    } catch (error) {
      report(error);
    }
  };

  const sample = async (): Promise<void> => {
    if (document.hidden || state.info.value === undefined) return;
    const statistics = await client.statistics().catch(() => undefined);
    if (statistics === undefined) return;
    state.samples.value = [...state.samples.value, { seconds: Date.now() / 1000, statistics }].slice(
      -mostSamples,
    );
  };

  /** Takes pieces in; tokens that gave no text yet wait for the text they end in. */
  const follow = async (pieces: AsyncGenerator<Piece>, show: (pieces: Piece[]) => void): Promise<void> => {
    const startMs = performance.now();
    let firstMs: number | undefined;
    let numTokens = 0;
    let waiting: Piece["tokens"] = [];
    const all: Piece[] = [];
    for await (const { text, tokens } of pieces) {
      const nowMs = performance.now();
      numTokens += tokens.length;
      if (tokens.length > 0) firstMs ??= nowMs;
      waiting.push(...tokens);
      if (text !== "") {
        all.push({ text, tokens: waiting });
        waiting = [];
      }
      const seconds = (nowMs - (firstMs ?? nowMs)) / 1000;
      batch(() => {
        show([...all]);
        state.speed.value = {
          numTokens,
          firstTokenMs: (firstMs ?? nowMs) - startMs,
          tokensPerSecond: seconds > 0 ? (numTokens - 1) / seconds : 0,
        };
      });
    }
  };

  const run = async (work: (signal: AbortSignal) => Promise<void>): Promise<void> => {
    running?.abort();
    const own = (running = new AbortController());
    batch(() => {
      state.isRunning.value = true;
      state.failure.value = undefined;
      state.speed.value = undefined;
    });
    try {
      await work(own.signal);
    } catch (error) {
      report(error);
    } finally {
      if (running === own) state.isRunning.value = false;
    }
  };

  const complete = (): Promise<void> =>
    run(async (signal) => {
      const prompt = state.prompt.value;
      batch(() => {
        state.answered.value = prompt;
        state.pieces.value = [];
        state.recent.value = [prompt, ...state.recent.value.filter((other) => other !== prompt)].slice(
          0,
          mostRecent,
        );
      });
      const pieces = client.complete(state.model.value, prompt, state.sampling.value, signal);
      await follow(pieces, (all) => (state.pieces.value = all));
    });

  const say = (): Promise<void> =>
    run(async (signal) => {
      const turns: ChatTurn[] = [...state.turns.value, { role: "user", content: state.draft.value.trim() }];
      batch(() => {
        state.draft.value = "";
        state.turns.value = [...turns, { role: "assistant", content: "", pieces: [] }];
      });
      const system = state.system.value.trim();
      const messages: Message[] = [
        ...(system === "" ? [] : [{ role: "system" as const, content: system }]),
        ...turns.map(({ role, content }) => ({ role, content })),
      ];
      await follow(client.chat(state.model.value, messages, state.sampling.value, signal), (pieces) => {
        const content = pieces.map(({ text }) => text).join("");
        state.turns.value = [...turns, { role: "assistant", content, pieces }];
      });
    });

  return {
    load,
    sample,
    send: () =>
      state.mode.value === "complete" ? complete() : state.draft.value.trim() === "" ? undefined : say(),
    stop: () => running?.abort(),
    clearChat: () => {
      running?.abort();
      state.turns.value = [];
    },
    /** Puts the answer behind the prompt, to go on from there. */
    keep: () =>
      batch(() => {
        state.prompt.value = state.answered.value + state.pieces.value.map(({ text }) => text).join("");
        state.pieces.value = [];
        state.answered.value = "";
      }),
    setKey: (key: string) => {
      client.key = key;
      sessionStorage.setItem("nautilus-key", key);
      return load();
    },
    setSampling: (changed: Partial<Sampling>) =>
      (state.sampling.value = { ...state.sampling.value, ...changed }),
    resetSampling: () => (state.sampling.value = defaultSampling),
  };
}
