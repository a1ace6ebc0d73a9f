/** The process of bench/serve-gpu-server.ts, as bench/serve-gpu.ts talks to it. */
import { fork } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { ConfigError } from "../src/base/index.ts";
import { fromServerSchema } from "./serve-gpu-shared.ts";
import type { BenchEngineSettings, EngineTotals, FromServer, ToServer } from "./serve-gpu-shared.ts";

/** The server's process, asked one thing at a time. */
export class ServerProcess {
  readonly settings: BenchEngineSettings;
  readonly #child: ChildProcess;
  url = "";

  constructor(settings: BenchEngineSettings) {
    this.settings = settings;
    const path = new URL("serve-gpu-server.ts", import.meta.url).pathname;
    this.#child = fork(path, [JSON.stringify(settings)]);
    this.#child.once("exit", (code) => {
      if (code !== 0) {
        console.error(`the server's process ended with code ${code}`);
        process.exit(1);
      }
    });
  }

  async answer<Type extends FromServer["type"]>(type: Type): Promise<Extract<FromServer, { type: Type }>> {
    const [message]: unknown[] = await once(this.#child, "message");
    const answer = fromServerSchema.parse(message);
    if (isOf(answer, type)) return answer;
    throw new ConfigError("bench", `expected an answer of type ${type}, got ${answer.type}`);
  }

  tell(message: ToServer): void {
    this.#child.send(message);
  }

  async totals(): Promise<EngineTotals> {
    this.tell({ type: "totals" });
    return (await this.answer("totals")).totals;
  }

  async stop(): Promise<void> {
    const ended = once(this.#child, "exit");
    this.tell({ type: "stop" });
    await ended;
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }
}

function isOf<Type extends FromServer["type"]>(
  message: FromServer,
  type: Type,
): message is Extract<FromServer, { type: Type }> {
  return message.type === type;
}
