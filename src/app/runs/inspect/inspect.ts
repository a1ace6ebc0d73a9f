/** `nautilus inspect`: prints what a checkpoint is, in lines of 80 columns. */
import { existsSync, statSync } from "node:fs";
import { formatBytes, formatCount, countOf } from "../../../base/index.ts";
import { findAdapterFolder } from "../adapter/find.ts";
import { describePositions } from "../modelInfo.ts";
import { findModel } from "../openModel.ts";
import { describeCheckpoint } from "./describe.ts";
import type { Inspection } from "./describe.ts";
import { tensorTable } from "./tensorTable.ts";

/** The verb's options. */
export interface InspectCliOptions {
  all?: boolean;
  json?: boolean;
}

const columns = 80;
const formats: Readonly<Record<string, string>> = {
  "hugging-face": "Hugging Face folder",
  nemo: "NeMo or Megatron checkpoint",
  gguf: "GGUF file",
  safetensors: "safetensors file",
  torch: "PyTorch file",
  configuration: "config.json",
  tokenizer: "tokenizer",
};

export async function inspectCommand(path: string, options: InspectCliOptions): Promise<void> {
  if (existsSync(path) && statSync(path).isDirectory() && findAdapterFolder(path) !== undefined) {
    // Only where it is wanted: it brings the devices along.
    const { inspectAdapter } = await import("../adapter/adapter.ts");
    inspectAdapter(path, options);
    return;
  }
  const inspection = await describeCheckpoint(findModel(path));
  if (options.json === true) process.stdout.write(`${JSON.stringify(inspection, undefined, 2)}\n`);
  else process.stdout.write(`${inspectionText(inspection, { listsAll: options.all === true })}\n`);
}

/** The whole report. */
export function inspectionText(inspection: Inspection, { listsAll }: { listsAll: boolean }): string {
  const rows = [...modelRows(inspection), ...otherRows(inspection)];
  return [
    inspection.path,
    ...rows.flatMap(([label, value]) => wrapped(label, value)),
    ...(inspection.tensors.length === 0 ? [] : ["", ...tensorTable(inspection.tensors, listsAll)]),
  ].join("\n");
}

type Row = [label: string, value: string];

function modelRows({ format, model, reason, isSupported, parameters, bytes, tensors }: Inspection): Row[] {
  const dtypes = [...new Set(tensors.map(({ dtype }) => dtype))].join(", ");
  const rows: Row[] = [["format", formats[format] ?? format]];
  if (tensors.length > 0) {
    rows.push([
      "weights",
      `${formatCount(parameters)} values in ${dtypes}, ${formatBytes(bytes)}, ${countOf(tensors.length, "tensor")}`,
    ]);
  }
  if (!isSupported && reason !== null) rows.push(["not run", reason]);
  if (model === null) return rows;
  const { numLayers, width, ffnWidth, vocabSize, numHeads, numKvHeads, headDim, norm, activation } = model;
  rows.push(
    ["family", model.family],
    ["shape", `${countOf(numLayers, "layer")}, width ${width}, ffn ${ffnWidth}, vocabulary ${vocabSize}`],
    ["heads", `${numHeads} query, ${numKvHeads} key/value, ${headDim} wide`],
    ["positions", describePositions(model)],
    ["block", `${norm.kind}, ${activation}${model.isGated ? " gated" : ""}, ${biasText(model.biases)}`],
    ["head", model.tiesEmbeddings ? "tied to the embedding" : "of its own"],
  );
  if (model.positionLimit !== undefined) rows.push(["limit", model.positionLimit]);
  return rows;
}

function biasText(biases: Readonly<Record<string, boolean>>): string {
  const named = Object.keys(biases).filter((name) => biases[name]);
  return named.length === 0 ? "no biases" : `biases in ${named.join(", ")}`;
}

function otherRows({ tokenizer, tokenizerReason, license, baseModels, files, metadata }: Inspection): Row[] {
  const rows: Row[] = [];
  if (tokenizer === null) {
    rows.push(["tokenizer", tokenizerReason === null ? "none" : `not read: ${tokenizerReason}`]);
  } else {
    const { kind, vocabSize, bosId, eosId, padId } = tokenizer;
    rows.push([
      "tokenizer",
      `${kind}, ${vocabSize} tokens; bos ${bosId ?? "none"}, eos ${eosId}, pad ${padId ?? "none"}`,
    ]);
  }
  rows.push([
    "license",
    license.name === null ? "not recorded" : [license.name, license.link ?? ""].join(" ").trim(),
  ]);
  if (baseModels.length > 0) rows.push(["base model", baseModels.join(", ")]);
  if (files.length > 0) rows.push(["files", files.join(", ")]);
  const facts = Object.entries(metadata).map(([key, value]) => `${key}=${value.slice(0, 60)}`);
  if (facts.length > 0) rows.push(["metadata", facts.join(", ")]);
  return rows;
}

const labelWidth = 13;

/** A label and its value, broken at spaces. */
function wrapped(label: string, value: string): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of value.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > columns - labelWidth) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  lines.push(line);
  return lines.map((text, i) => `${(i === 0 ? `  ${label}` : "").padEnd(labelWidth)}${text}`);
}
