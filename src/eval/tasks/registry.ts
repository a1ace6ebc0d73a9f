/** All tasks and groups by name. A task costs one file and a line here. */
import { ConfigError, nearest } from "../../base/index.ts";
import type { Task, TaskGroup } from "../task.ts";
import { boolq } from "./boolq.ts";
import { floresTasks } from "./flores.ts";
import { humaneval } from "./humaneval.ts";
import { mbpp } from "./mbpp.ts";
import { openbookqa } from "./openbookqa.ts";
import { truthfulqaMc1, truthfulqaMc2 } from "./truthfulqa.ts";
import { wikitext } from "./wikitext.ts";
import { xlsumTasks } from "./xlsum.ts";
import { arcChallenge, arcEasy } from "./arc.ts";
import { gsm8kGreedy, gsm8kMajority, gsm8kSelfConsistency } from "./gsm8k.ts";
import { hellaswag, hellaswagNvidia } from "./hellaswag.ts";
import { lambada, lambadaNvidia } from "./lambada.ts";
import { mmluGroups, mmluPrefix, mmluTasks } from "./mmlu.ts";
import type { MmluWay } from "./mmlu.ts";
import { piqa, piqaNvidia } from "./piqa.ts";
import { tydiqaGroup, tydiqaTasks } from "./tydiqa.ts";
import { webqs } from "./webqs.ts";
import { winogrande, winograndeNvidia } from "./winogrande.ts";

export const builtInTasks: readonly Task[] = [
  arcEasy,
  arcChallenge,
  boolq,
  ...floresTasks,
  gsm8kGreedy,
  gsm8kMajority,
  gsm8kSelfConsistency,
  hellaswag,
  hellaswagNvidia,
  lambada,
  lambadaNvidia,
  humaneval,
  mbpp,
  ...mmluTasks,
  openbookqa,
  piqa,
  piqaNvidia,
  truthfulqaMc1,
  truthfulqaMc2,
  ...tydiqaTasks,
  webqs,
  wikitext,
  winogrande,
  winograndeNvidia,
  ...xlsumTasks,
];

export const builtInGroups: readonly TaskGroup[] = [...mmluGroups, tydiqaGroup];

/** Short names, as the model card's rows are called. */
export const aliases: Readonly<Record<string, string>> = {
  lambada: "lambada_openai",
  gsm8k: "gsm8k_maj8",
};

export interface Selection {
  tasks: readonly Task[];
  groups: readonly TaskGroup[];
  /** What was asked for, in order, under the registered names. */
  names: readonly string[];
}

export class TaskRegistry {
  readonly #tasks: ReadonlyMap<string, Task>;
  readonly #groups: ReadonlyMap<string, TaskGroup>;

  /** Built-in tasks and a user's own, which may not take a name that there is. Throws ConfigError. */
  constructor(own: readonly Task[] = [], ownGroups: readonly TaskGroup[] = []) {
    const tasks = new Map(builtInTasks.map((task) => [task.name, task]));
    const groups = new Map(builtInGroups.map((group) => [group.name, group]));
    for (const { name } of [...own, ...ownGroups]) {
      if (tasks.has(name) || groups.has(name))
        throw new ConfigError("eval", `expected a task of a new name, got '${name}'`, { hint: "rename it" });
    }
    for (const task of own) tasks.set(task.name, task);
    for (const group of ownGroups) groups.set(group.name, group);
    this.#tasks = tasks;
    this.#groups = groups;
  }

  get tasks(): readonly Task[] {
    return [...this.#tasks.values()];
  }

  get groups(): readonly TaskGroup[] {
    return [...this.#groups.values()];
  }

  /** The task, or undefined. */
  task(name: string): Task | undefined {
    return this.#tasks.get(name);
  }

  group(name: string): TaskGroup | undefined {
    return this.#groups.get(name);
  }

  /** Tasks and groups by what a user calls them; `mmlu` in the way that was chosen. Throws ConfigError for an unknown name. */
  select(names: readonly string[], way: MmluWay = "original"): Selection {
    const tasks = new Map<string, Task>();
    const groups = new Map<string, TaskGroup>();
    const registered = names.map((name) => this.#registeredName(name, way));
    const add = (name: string): void => {
      const group = this.#groups.get(name);
      const task = this.#tasks.get(name);
      if (group !== undefined) {
        groups.set(name, group);
        group.members.forEach(add);
      } else if (task === undefined) throw this.#unknown(name);
      else tasks.set(name, task);
    };
    registered.forEach(add);
    return { tasks: [...tasks.values()], groups: [...groups.values()], names: registered };
  }

  /** The tasks that are a second column of others. */
  variantsOf(tasks: readonly Task[]): Task[] {
    const names = new Set(tasks.map(({ name }) => name));
    return this.tasks.filter(({ variantOf }) => variantOf !== undefined && names.has(variantOf));
  }

  #registeredName(name: string, way: MmluWay): string {
    const isMmlu =
      name === "mmlu" || (name.startsWith("mmlu_") && this.#has(name) && !/^mmlu_(original|helm)/.test(name));
    if (isMmlu && way !== "lm-eval") return mmluPrefix[way] + name.slice("mmlu".length);
    const alias = aliases[name] ?? name;
    if (!this.#has(alias)) throw this.#unknown(name);
    return alias;
  }

  #has(name: string): boolean {
    return this.#tasks.has(name) || this.#groups.has(name);
  }

  #unknown(name: string): ConfigError {
    const known = [...Object.keys(aliases), ...this.#groups.keys(), ...this.#tasks.keys()];
    const near = nearest(name, known);
    return new ConfigError("eval", `expected a task's name, got '${name}'`, {
      hint:
        near === undefined
          ? "see 'nautilus eval list'"
          : `did you mean '${near}'? 'nautilus eval list' names them all`,
    });
  }
}
