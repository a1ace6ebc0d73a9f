/** `nautilus eval list`. */
import { labelled } from "../../terminal/columns.ts";
import { aliases, TaskRegistry } from "../../../eval/index.ts";

export function listCommand({ json }: { json?: boolean }): void {
  const registry = new TaskRegistry();
  const tasks = registry.tasks.map(({ name, title, version, numShots, ability, metrics, source, split }) => ({
    name,
    title,
    version,
    numShots,
    ability,
    metrics: [...new Set(metrics.map((metric) => metric.name))],
    data: `${source.folder}/${split}`,
    homepage: source.homepage,
    licence: source.licence,
  }));
  if (json === true) {
    process.stdout.write(`${JSON.stringify({ tasks, groups: registry.groups, aliases }, undefined, 2)}\n`);
    return;
  }
  const grouped = new Set(registry.groups.flatMap(({ members }) => members));
  const line = (name: string, text: string): string => labelled(`  ${name.padEnd(30)} `, text);
  process.stdout.write("groups\n");
  for (const { name, title, members } of registry.groups)
    process.stdout.write(line(name, `${title}: ${members.length} members`));
  process.stdout.write("tasks\n");
  for (const { name, title, numShots, ability, metrics, licence } of tasks.filter(
    (task) => !grouped.has(task.name),
  ))
    process.stdout.write(
      line(name, `${title}, ${numShots}-shot, ${ability}: ${metrics.join(", ")} (data: ${licence})`),
    );
  process.stdout.write(
    labelled(
      "",
      `${grouped.size} members of groups are not shown (--json names them). Short names: ${Object.entries(
        aliases,
      )
        .map(([short, name]) => `${short} = ${name}`)
        .join(", ")}; mmlu = mmlu_original unless --mmlu says otherwise`,
    ),
  );
}
