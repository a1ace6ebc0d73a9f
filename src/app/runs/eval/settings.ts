/** The settings a log was made with: a run goes on only with the same ones. */
import { existsSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import { ConfigError, readJson, writeText } from "../../../base/index.ts";

/** Writes the settings at the first run, and compares them at later ones. Throws ConfigError naming what differs. */
export function checkSettings(path: string, settings: Readonly<Record<string, unknown>>): void {
  const plain: Record<string, unknown> = JSON.parse(JSON.stringify(settings)) as Record<string, unknown>;
  if (!existsSync(path)) {
    writeText("eval", path, `${JSON.stringify(plain, undefined, 2)}\n`);
    return;
  }
  const before = readJson("eval", path);
  if (isDeepStrictEqual(before, plain)) return;
  const fields = typeof before === "object" && before !== null ? { ...before } : {};
  const all = new Set([...Object.keys(fields), ...Object.keys(plain)]);
  const changed = [...all].filter((key) => !isDeepStrictEqual(Reflect.get(fields, key), plain[key]));
  throw new ConfigError(
    "eval",
    `expected the settings that ${path} holds, got another ${changed.join(", ")}`,
    { hint: "choose another --output for other settings" },
  );
}
