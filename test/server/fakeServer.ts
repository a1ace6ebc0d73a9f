/** A server over a fake engine, on a free port of this machine. */
import { Writable } from "node:stream";
import { createServer } from "../../src/app/server/server.ts";
import type { NautilusServer } from "../../src/app/server/server.ts";
import type { ServerOptionsInput } from "../../src/app/server/options.ts";
import { ServedModels } from "../../src/app/server/servedModel.ts";
import type { ServedModel } from "../../src/app/server/servedModel.ts";
import { FakeEngine } from "./fakeEngine.ts";

export function fakeModel(engine = new FakeEngine(), given: Partial<ServedModel> = {}): ServedModel {
  return {
    name: "fake",
    engine,
    tokenizer: engine.tokenizer,
    chatTemplates: undefined,
    card: "# A fake model",
    license: "Apache-2.0",
    created: 1_700_000_000,
    ...given,
  };
}

export interface FakeServerInput {
  engine?: FakeEngine;
  models?: readonly ServedModel[];
  options?: ServerOptionsInput;
  /** A built playground. */
  pages?: string;
  /** Log lines, as they are written. */
  lines?: string[];
}

export function fakeServer({
  engine,
  models,
  options,
  pages,
  lines = [],
}: FakeServerInput = {}): NautilusServer {
  const logDestination = new Writable({
    write(chunk: Buffer, _encoding, done) {
      lines.push(chunk.toString("utf8"));
      done();
    },
  });
  return createServer({
    models: new ServedModels(models ?? [fakeModel(engine)]),
    options: { port: 0, ...options },
    ...(pages === undefined ? {} : { pages }),
    logDestination,
  });
}
