/**
 * config.json as text. Some versions of transformers refuse a whole number where a real one is meant ("factor field must be a float"), which
 * JSON.stringify does not tell apart.
 */
const realKeys = [
  "factor",
  "low_freq_factor",
  "high_freq_factor",
  "beta_fast",
  "beta_slow",
  "attention_factor",
  "rope_theta",
  "partial_rotary_factor",
  "initializer_range",
  "attention_dropout",
];
const wholeNumber = new RegExp(`^(\\s*"(?:${realKeys.join("|")})": -?\\d+)(,?)$`, "gm");

/** The file's text. */
export function configText(json: Readonly<Record<string, unknown>>): string {
  return `${JSON.stringify(json, undefined, 2).replace(wholeNumber, "$1.0$2")}\n`;
}
