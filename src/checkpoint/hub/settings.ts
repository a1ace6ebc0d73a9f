/**
 * Where the hub is, where its cache lies and who asks: read from the variables that Python's `huggingface_hub` reads, so that both
 * programs share one login, one cache and one mirror.
 */
import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { ConfigError } from "../../base/index.ts";

export interface HubSettings {
  /** Base address without a slash at its end; HF_ENDPOINT, else the public hub. */
  endpoint: string;
  /** Folder of `models--org--name`; HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub. */
  cacheFolder: string;
  /** HF_TOKEN, else the text of the token file (HF_TOKEN_PATH, else HF_HOME/token). */
  token: string | undefined;
  /** HF_HUB_OFFLINE: nothing is asked for over the network. */
  isOffline: boolean;
  /** Longest wait for an answer's head; HF_HUB_ETAG_TIMEOUT in seconds. */
  answerTimeoutMs: number;
  /** Longest silence in the middle of a file; HF_HUB_DOWNLOAD_TIMEOUT in seconds. */
  dataTimeoutMs: number;
  /** Wait before the second attempt; doubles with each further one. */
  retryDelayMs: number;
}

const publicEndpoint = "https://huggingface.co";
const defaultTimeoutSeconds = 10;

type Environment = Readonly<Record<string, string | undefined>>;

/** The settings of this process. Throws ConfigError where a variable cannot be what it says. */
export function hubSettings(env: Environment = process.env): HubSettings {
  const home = expandHome(
    firstSet(env, "HF_HOME") ??
      join(firstSet(env, "XDG_CACHE_HOME") ?? join(homedir(), ".cache"), "huggingface"),
  );
  const cache = firstSet(env, "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE") ?? join(home, "hub");
  return {
    endpoint: checkEndpoint(firstSet(env, "HF_ENDPOINT") ?? publicEndpoint),
    cacheFolder: resolve(expandHome(cache)),
    token: isTrue(env["HF_HUB_DISABLE_IMPLICIT_TOKEN"]) ? undefined : readToken(env, home),
    isOffline: isTrue(firstSet(env, "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")),
    answerTimeoutMs: milliseconds(env, "HF_HUB_ETAG_TIMEOUT"),
    dataTimeoutMs: milliseconds(env, "HF_HUB_DOWNLOAD_TIMEOUT"),
    retryDelayMs: 1000,
  };
}

function firstSet(env: Environment, ...names: string[]): string | undefined {
  for (const name of names) {
    const value = env[name];
    if (value !== undefined && value !== "") return value;
  }
  return undefined;
}

function expandHome(path: string): string {
  return path === "~" || path.startsWith("~/") ? join(homedir(), path.slice(1)) : path;
}

function isTrue(value: string | undefined): boolean {
  return value !== undefined && ["1", "on", "yes", "true"].includes(value.toLowerCase());
}

function checkEndpoint(text: string): string {
  const url = URL.parse(text);
  if (url === null || (url.protocol !== "https:" && url.protocol !== "http:")) {
    throw new ConfigError("hub", `HF_ENDPOINT: expected an address such as ${publicEndpoint}, got '${text}'`);
  }
  return text.replace(/\/+$/, "");
}

function readToken(env: Environment, home: string): string | undefined {
  const path = expandHome(firstSet(env, "HF_TOKEN_PATH") ?? join(home, "token"));
  const text =
    firstSet(env, "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") ??
    (existsSync(path) ? readFileSync(path, "utf8") : "");
  const token = text.trim();
  if (token === "") return undefined;
  if (!/^[\x21-\x7e]+$/.test(token)) {
    throw new ConfigError("hub", "HF_TOKEN: expected one word of ASCII letters, got something else", {
      hint: `check HF_TOKEN and ${path}`,
    });
  }
  return token;
}

function milliseconds(env: Environment, name: string): number {
  const text = firstSet(env, name);
  const seconds = text === undefined ? defaultTimeoutSeconds : Number(text);
  if (!(seconds > 0)) throw new ConfigError("hub", `${name}: expected seconds above 0, got '${text}'`);
  return seconds * 1000;
}
