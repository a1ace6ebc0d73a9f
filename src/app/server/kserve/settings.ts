/** Triton's trace and log settings, as a server has them that neither traces nor changes its log while it runs. */
import type { Message } from "../../kserve/index.ts";
import { Refusal } from "../refusal.ts";

export const traceSettings = { trace_level: ["OFF"], trace_rate: "0", trace_count: "0", log_frequency: "0" };
export const logSettings = { log_info: true, log_warning: true, log_error: true, log_verbose_level: 0 };

export function traceSettingsMessage(): Message {
  const settings = Object.entries(traceSettings).map(([name, value]) => [name, { value: [value].flat() }]);
  return { settings: Object.fromEntries(settings) };
}

export function logSettingsMessage(): Message {
  const settings = Object.entries(logSettings).map(([name, value]) => [
    name,
    typeof value === "boolean" ? { bool_param: value } : { uint32_param: value },
  ]);
  return { settings: Object.fromEntries(settings) };
}

export function refuseSettings(): never {
  throw new Refusal(501, "expected settings to stay as the server was started", {
    hint: "see nautilus serve --help for its log options",
  });
}
