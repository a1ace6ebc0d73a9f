/** The `model-index` block of a model card's front matter, from which the hub makes leaderboard rows. */
import type { ReportRow } from "./table.ts";

/** YAML, to paste into README.md between its `---` lines. */
export function modelIndex(modelName: string, rows: readonly ReportRow[]): string {
  const quoted = (text: string): string => JSON.stringify(text);
  const lines = ["model-index:", `- name: ${quoted(modelName)}`, "  results:"];
  const names = [...new Set(rows.map(({ name }) => name))];
  for (const name of names) {
    const own = rows.filter((row) => row.name === name && !Number.isNaN(row.figure.value));
    if (own.length === 0) continue;
    lines.push(
      "  - task:",
      "      type: text-generation",
      "    dataset:",
      `      name: ${quoted(own[0].title)}`,
      `      type: ${quoted(name)}`,
      "    metrics:",
    );
    for (const { metric, filter, figure, isShare, numShots } of own) {
      const value = isShare ? 100 * figure.value : figure.value;
      lines.push(
        `    - type: ${quoted(metric)}`,
        `      name: ${quoted(`${metric}${filter === "none" ? "" : ` (${filter})`}, ${numShots ?? 0}-shot`)}`,
        `      value: ${Number(value.toFixed(4))}`,
      );
    }
  }
  return `${lines.join("\n")}\n`;
}
