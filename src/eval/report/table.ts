/** The rows of the report: what was measured, its standard error, NVIDIA's copy of the harness beside it, and the card's figure. */
import type { Figure } from "../metrics/aggregate.ts";
import type { EvaluationResult } from "../evaluate.ts";
import { nemotronCard } from "./card.ts";

export interface ReportRow {
  name: string;
  title: string;
  metric: string;
  filter: string;
  numShots: number | undefined;
  figure: Figure;
  isShare: boolean;
  /** As NVIDIA's copy of the harness scores it, where it was run. */
  nvidia: Figure | undefined;
  card: number | undefined;
}

/** Under which name a metric stands in NVIDIA's copy: it normalises by tokens. */
const nvidiaKeys: Readonly<Record<string, string>> = { "acc_norm,none": "acc_norm_tokens,none" };

/** Rows of the named tasks and groups, in that order; without names all tasks that are nobody's second column. */
export function reportRows(result: EvaluationResult, names: readonly string[]): ReportRow[] {
  return names.flatMap((name) => {
    const group = result.groups.find((candidate) => candidate.group.name === name);
    const own = result.tasks.find(({ task }) => task.name === name);
    const member = own ?? result.tasks.find(({ task }) => task.name.startsWith(`${name}_`));
    const figures = group?.figures ?? own?.figures ?? {};
    const variant = result.tasks.find(({ task }) => task.variantOf === name);
    const card = nemotronCard.find((row) => row.name === name);
    return Object.entries(figures).map(([key, figure]) => {
      const [metric, filter] = key.split(",");
      return {
        name,
        title: group?.group.title ?? own?.task.title ?? name,
        metric,
        filter,
        numShots: member?.numShots,
        figure,
        isShare: member?.task.metrics.find((candidate) => candidate.name === metric)?.isShare ?? false,
        nvidia: variant?.figures[nvidiaKeys[key] ?? key],
        card: card?.metrics.includes(key) === true ? card.figure : undefined,
      };
    });
  });
}

/** A figure for people: percent where it is a share. */
export function shown(value: number | undefined, isShare: boolean): string {
  if (value === undefined || Number.isNaN(value)) return "";
  if (isShare) return (100 * value).toFixed(2);
  // Perplexities of models that know little: their thousandths say nothing, and millions have too many digits for a column.
  if (value >= 1e6) return value.toExponential(3);
  return value >= 1000 ? value.toFixed(0) : value >= 100 ? value.toFixed(1) : value.toFixed(3);
}

export function markdownTable(rows: readonly ReportRow[]): string {
  const hasNvidia = rows.some(({ nvidia }) => nvidia !== undefined);
  const header = [
    "Task",
    "Shots",
    "Filter",
    "Metric",
    "Value",
    "±",
    ...(hasNvidia ? ["NVIDIA's copy"] : []),
    "Card",
  ];
  const cells = rows.map(({ title, numShots, filter, metric, figure, isShare, nvidia, card }) => [
    title,
    numShots === undefined ? "" : String(numShots),
    filter,
    metric,
    shown(figure.value, isShare),
    shown(figure.standardError, isShare),
    ...(hasNvidia ? [shown(nvidia?.value, isShare)] : []),
    card?.toFixed(1) ?? "",
  ]);
  const widths = header.map((name, column) =>
    Math.max(name.length, ...cells.map((row) => row[column].length)),
  );
  const line = (row: readonly string[]): string =>
    `| ${row.map((cell, column) => (column < 4 && column !== 1 ? cell.padEnd(widths[column]) : cell.padStart(widths[column]))).join(" | ")} |`;
  const rule = `| ${widths.map((width, column) => (column < 4 && column !== 1 ? "-".repeat(width) : `${"-".repeat(Math.max(1, width - 1))}:`)).join(" | ")} |`;
  return `${[line(header), rule, ...cells.map(line)].join("\n")}\n`;
}

/** What the last columns are, for readers who did not make the table; "" where it has none of them. */
export function columnNotes(rows: readonly ReportRow[]): string {
  const notes = [
    ...(rows.some(({ card }) => card !== undefined) ? ["Card: what the card of Nemotron-3-8B gives."] : []),
    ...(rows.some(({ nvidia }) => nvidia !== undefined)
      ? ["NVIDIA's copy: as its copy of the harness scores."]
      : []),
  ];
  return notes.join(" ");
}
