/** What `nautilus serve` prints once it listens: where it is, and what to try. */

export interface StartScreen {
  /** Of HTTP, without a slash at its end. */
  url: string;
  models: readonly {
    name: string;
    dtype: string;
    quantise: string | null;
    kvCache: string;
    device: string;
    maxContext: number;
    adapters: readonly string[];
  }[];
  grpcPort: number | undefined;
  hasPlayground: boolean;
  needsKey: boolean;
}

/** Columns that a terminal has at least. */
const width = 80;

/** Lines of at most 80 columns, but for names and addresses that are longer themselves. */
export function startScreen({ url, models, grpcPort, hasPlayground, needsKey }: StartScreen): string {
  const quoted = JSON.stringify(models[0].name).replaceAll("'", "'\\''");
  return [
    "",
    ...models.flatMap(modelLines),
    "",
    ...(hasPlayground ? [`  Playground   ${url}/`] : []),
    `  OpenAI API   ${url}/v1`,
    `  KServe API   ${url}/v2${grpcPort === undefined ? "" : `, gRPC on port ${grpcPort}`}`,
    `  Metrics      ${url}/metrics`,
    `  API document ${url}/openapi.json`,
    "",
    `  curl ${url}/v1/completions \\`,
    `    -H "Content-Type: application/json" \\`,
    ...(needsKey ? [`    -H "Authorization: Bearer $NAUTILUS_API_KEY" \\`] : []),
    `    -d '{"model": ${quoted},`,
    `         "prompt": "The meaning of life is", "max_tokens": 32}'`,
    "",
    "  Ctrl-C ends the server.",
    "",
    "",
  ].join("\n");
}

function modelLines(model: StartScreen["models"][number]): string[] {
  const { name, dtype, quantise, kvCache, device, maxContext, adapters } = model;
  const cache = kvCache === dtype ? [] : [`cache in ${kvCache}`];
  const details = [`${quantise ?? dtype} on ${device}`, ...cache, `${maxContext} tokens of context`];
  const line = `  ${name}: ${details.join(", ")}`;
  const lines = line.length <= width ? [line] : [`  ${name}:`, ...details.map((detail) => `    ${detail}`)];
  return [...lines, ...adapters.map((adapter) => `  ${name}:${adapter}`)];
}
