/** The report as one HTML file without outside parts: the table, a chart of groups' members, and samples to browse. */
import type { EvaluationResult, TaskResult } from "../evaluate.ts";
import type { LoggedSample } from "../sampleLog.ts";
import { pageScript, pageStyle } from "./page.ts";
import { columnNotes, shown } from "./table.ts";
import type { ReportRow } from "./table.ts";

export interface HtmlOptions {
  modelName: string;
  /** Samples shown of each task; the logs have all. */
  samplesPerTask?: number;
}

export function htmlReport(
  result: EvaluationResult,
  rows: readonly ReportRow[],
  { modelName, samplesPerTask = 40 }: HtmlOptions,
): string {
  const samples = result.tasks
    .filter(({ task }) => task.variantOf === undefined)
    .map((own) => ({ task: own.task.name, samples: chosen(own, samplesPerTask).map(browsable) }));
  const note = result.isPartial ? "<p class=note>This run was stopped before its end.</p>" : "";
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Evaluation of ${escape(modelName)}</title><style>${pageStyle}</style></head><body>
<header><h1>${escape(modelName)}</h1><p>${result.tasks.length} tasks, ${result.tasks.reduce((sum, { samples: own }) => sum + own.length, 0).toLocaleString("en")} samples, ${result.seconds.toFixed(0)} s</p>${note}</header>
<section><h2>Results</h2>${tableOf(rows)}</section>
${chartOf(result)}
<section><h2>Samples</h2><p class=hint>Up to ${samplesPerTask} of each task, half of them wrong ones where there are any; the logs beside this file hold all.</p>
<nav><select id=task></select><select id=verdict><option value=all>all<option value=right>right<option value=wrong>wrong</select><input id=query type=search placeholder="search"></nav>
<div id=list></div></section>
<script type="application/json" id=data>${JSON.stringify(samples).replaceAll("<", "\\u003c")}</script>
<script>${pageScript}</script></body></html>
`;
}

function escape(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}

function tableOf(rows: readonly ReportRow[]): string {
  const hasNvidia = rows.some(({ nvidia }) => nvidia !== undefined);
  const body = rows
    .map(
      ({ title, numShots, metric, filter, figure, isShare, nvidia, card }) =>
        `<tr><td>${escape(title)}<td>${numShots ?? ""}<td>${escape(metric)}${filter === "none" ? "" : ` <small>${escape(filter)}</small>`}<td><b>${shown(figure.value, isShare)}</b><td>${shown(figure.standardError, isShare)}${hasNvidia ? `<td>${shown(nvidia?.value, isShare)}` : ""}<td>${card?.toFixed(1) ?? ""}</tr>`,
    )
    .join("");
  return `<div class=wide><table><thead><tr><th>Task<th>Shots<th>Metric<th>Value<th>±${hasNvidia ? "<th>NVIDIA's copy" : ""}<th>Card</tr></thead><tbody>${body}</tbody></table></div><p class="hint">${columnNotes(rows)}</p>`;
}

/** A bar for each member of each group that has tasks as members. */
function chartOf({ groups, tasks }: EvaluationResult): string {
  return groups
    .map(({ group }) => {
      const members = tasks.filter(({ task }) => group.members.includes(task.name));
      if (members.length === 0) return "";
      const bars = members.map(({ task, figures }) => {
        const [figure] = Object.values(figures);
        const percent = Math.max(0, Math.min(100, 100 * figure.value));
        const error = Number.isNaN(figure.standardError) ? 0 : 100 * figure.standardError;
        return `<div class=bar><span>${escape(task.title)}</span><i><u style="width:${percent.toFixed(2)}%"></u><s style="left:${Math.max(0, percent - error).toFixed(2)}%;width:${(2 * error).toFixed(2)}%"></s></i><b>${percent.toFixed(1)}</b></div>`;
      });
      return `<section><h2>${escape(group.title)}</h2><div class=chart>${bars.join("")}</div></section>`;
    })
    .join("\n");
}

/** Wrong ones and right ones by halves, in order. */
function chosen({ samples }: TaskResult, count: number): LoggedSample[] {
  if (samples.length <= count) return [...samples];
  const wrong = samples.filter(({ isCorrect }) => isCorrect === false).slice(0, count / 2);
  const others = samples.filter(({ isCorrect }) => isCorrect !== false).slice(0, count - wrong.length);
  return [...wrong, ...others].toSorted((a, b) => a.index - b.index);
}

function browsable({
  index,
  requests,
  answers,
  prediction,
  target,
  isCorrect,
}: LoggedSample): Record<string, unknown> {
  const [first] = requests;
  return {
    index,
    prompt: first?.prompt ?? "",
    target,
    prediction,
    isCorrect,
    choices: requests.map(({ prompt, continuation }, place) => {
      const answer = answers[place];
      const text = answer.kind === "text" ? answer.text : (continuation ?? "");
      return {
        text: prompt === first.prompt ? text : `…${prompt.slice(-60)}${text}`,
        ...(answer.kind === "likelihood" ? { logprob: answer.logprob, isGreedy: answer.isGreedy } : {}),
      };
    }),
  };
}
