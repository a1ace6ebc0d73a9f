/**
 * Which files of a model are worth the transfer. Without patterns: everything that Nautilus or the reader of the model card needs, the
 * weights once, in the best form that is there. With patterns: exactly what they match, as `hf download` does.
 */
import { ConfigError, nearest } from "../../base/index.ts";
import type { HubFile } from "./client.ts";

export interface FilePatterns {
  /** Shell patterns; a file must match one of them. Undefined: the default choice. */
  include?: readonly string[];
  /** Instead of `include`: patterns in order; the files of the first that matches any. */
  firstOf?: readonly string[];
  /** Shell patterns; a file that matches one is left out. */
  exclude?: readonly string[];
}

export interface FileChoice {
  files: HubFile[];
  /** What was left out and why, for people. */
  notes: string[];
}

/** Picks the files of a pull. Throws ConfigError where the patterns leave none. */
export function chooseFiles(
  files: readonly HubFile[],
  { include, firstOf, exclude = [] }: FilePatterns,
): FileChoice {
  const notes: string[] = [];
  const excludes = exclude.map(patternOf);
  const matching = (patterns: readonly string[]): HubFile[] => {
    const expressions = patterns.map(patternOf);
    return files.filter(({ path }) => expressions.some((expression) => expression.test(path)));
  };
  const wanted =
    firstOf !== undefined
      ? (firstOf.map((pattern) => matching([pattern])).find(({ length }) => length > 0) ?? [])
      : include !== undefined
        ? matching(include)
        : defaultChoice(files, notes);
  const chosen = wanted.filter(({ path }) => !excludes.some((pattern) => pattern.test(path)));
  if (chosen.length > 0) return { files: chosen, notes };
  throw new ConfigError("hub", `expected files to pull, got none of ${files.length} that match`, {
    hint: nearestHint(
      firstOf ?? include ?? exclude,
      files.map(({ path }) => path),
    ),
  });
}

function nearestHint(patterns: readonly string[], paths: readonly string[]): string {
  const near = patterns.map((pattern) => nearest(pattern, paths)).find((path) => path !== undefined);
  if (near !== undefined) return `did you mean '${near}'?`;
  return paths.length === 0
    ? "the repository holds no files"
    : `it holds ${paths.slice(0, 5).join(", ")}${paths.length > 5 ? ", …" : ""}`;
}

/** A shell pattern as Python's `fnmatch` reads it: `*` crosses slashes; a folder's name with a slash means all below it. */
export function patternOf(pattern: string): RegExp {
  const whole = pattern.endsWith("/") ? `${pattern}*` : pattern;
  let source = "";
  for (let i = 0; i < whole.length; i++) {
    const letter = whole[i];
    const end = letter === "[" ? whole.indexOf("]", i + (whole[i + 1] === "!" ? 3 : 2)) : -1;
    if (letter === "*") source += ".*";
    else if (letter === "?") source += ".";
    else if (end > 0) {
      const body = whole.slice(i + 1, end).replace(/[\\\]^[&]/g, "\\$&");
      source += `[${body.startsWith("!") ? `^${body.slice(1)}` : body}]`;
      i = end;
    } else source += letter.replace(/[\\^$.|+(){}[\]/]/, "\\$&");
  }
  return new RegExp(`^(?:${source})$`, "s");
}

/** Forms of weights, the best first; of a form that is there all files are taken, of the others none. */
const weightForms: readonly { name: string; pattern: RegExp }[] = [
  { name: "safetensors", pattern: /\.safetensors$/ },
  { name: ".nemo", pattern: /\.nemo$/ },
  { name: "PyTorch", pattern: /\.(?:bin|pt|pth|ckpt)$/ },
  { name: "GGUF", pattern: /\.gguf$/ },
];
/** Forms that nothing here reads, and what only its makers or other programs need. */
const foreign =
  /\.(?:h5|msgpack|ot|onnx|onnx_data|tflite|mlmodel|mlpackage|pb|engine|pdf|png|jpe?g|gif|webp|svg|mp4|zip)$|^(?:onnx|openvino|coreml|runs|logs)\/|(?:^|\/)(?:\.git\w*|training_args\.bin|optimizer\.(?:pt|bin)|scheduler\.pt|rng_state\w*\.pth|events\.out\.tfevents.*)$/i;
/** The same weights a second time: the maker's own layout, and casts beside the full ones. */
const duplicate =
  /^original\/|(?:^|\/)consolidated[^/]*\.(?:safetensors|pth|pt)$|\.(?:fp16|fp32|bf16|non_ema)(?:-\d+-of-\d+)?\.(?:safetensors|bin)$|(?:^|\/)model\.(?:fp16|bf16)\./;
const ggufOrder = [/bf16/i, /f16/i, /q8_0/i, /q4_0/i, /f32/i];

function defaultChoice(files: readonly HubFile[], notes: string[]): HubFile[] {
  const useful = files.filter(({ path }) => !foreign.test(path));
  const weights = useful.filter(({ path }) => weightForms.some(({ pattern }) => pattern.test(path)));
  const first = weights.filter(({ path }) => !duplicate.test(path));
  const candidates = first.length > 0 ? first : weights;
  const form = weightForms.find(({ pattern }) => candidates.some(({ path }) => pattern.test(path)));
  let chosen = candidates.filter(({ path }) => form?.pattern.test(path));
  if (form?.name === "GGUF") chosen = oneGguf(chosen);
  const left = files.filter(
    (file) => !chosen.includes(file) && (weights.includes(file) || foreign.test(file.path)),
  );
  if (left.length > 0) {
    const names = left.slice(0, 3).map(({ path }) => path);
    notes.push(
      `left out ${left.length} file${left.length > 1 ? "s" : ""} that repeat the weights or that Nautilus does not read: ${names.join(", ")}${left.length > 3 ? ", …" : ""} (take them with --include)`,
    );
  }
  const kept = new Set([...chosen, ...useful.filter((file) => !weights.includes(file))]);
  // The index of a form that was left out would point to files that are not there.
  const isDeadIndex = ({ path }: HubFile): boolean =>
    form !== undefined &&
    /\.(?:safetensors|bin)\.index(?:\.fp16)?\.json$/.test(path) &&
    !indexFits(path, form.pattern);
  return files.filter((file) => kept.has(file) && !isDeadIndex(file));
}

const indexFits = (path: string, form: RegExp): boolean =>
  form.test(path.replace(/\.index(?:\.fp16)?\.json$/, ""));

/** Files of GGUF repositories are one model in many widths: the widest that Nautilus reads, with all its parts. */
function oneGguf(files: readonly HubFile[]): HubFile[] {
  const form = ggufOrder.find((pattern) => files.some(({ path }) => pattern.test(path)));
  const fitting = form === undefined ? files : files.filter(({ path }) => form.test(path));
  const stem = (path: string): string => path.replace(/-\d{5}-of-\d{5}(?=\.gguf$)/i, "");
  return fitting.filter(({ path }) => stem(path) === stem(fitting[0].path));
}
