/** Calls of tools: formats as models write them, found whole and streamed; and the server under Vercel's `ai` library. */
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, streamText, tool } from "ai";
import OpenAI from "openai";
import { describe, expect, it } from "vitest";
import { ChatTemplates } from "../../src/text/index.ts";
import { ToolCallParser } from "../../src/app/server/openai/toolCalls.ts";
import type { NautilusServer } from "../../src/app/server/server.ts";
import { FakeEngine } from "./fakeEngine.ts";
import { fakeModel, fakeServer } from "./fakeServer.ts";

const weather = { name: "weather", arguments: '{"city":"Kiel"}' };
const time = { name: "time", arguments: "{}" };
const formats: [string, string, { text: string; calls: object[] }][] = [
  [
    "Hermes and Qwen",
    'Let me see.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Kiel"}}\n</tool_call>\n<tool_call>{"name": "time"}</tool_call>',
    { text: "Let me see.\n", calls: [weather, time] },
  ],
  ["Nemotron", '<toolcall>{"name": "time", "arguments": {}}</toolcall>', { text: "", calls: [time] }],
  [
    "Mistral",
    '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Kiel"}}, {"name": "time", "arguments": {}}]',
    { text: "", calls: [weather, time] },
  ],
  [
    "newer Mistral",
    '[TOOL_CALLS]weather[ARGS]{"city":"Kiel"}[TOOL_CALLS]time{}',
    { text: "", calls: [weather, time] },
  ],
  ["Llama 3", '{"name": "weather", "parameters": {"city": "Kiel"}}', { text: "", calls: [weather] }],
  [
    "several of Llama 3",
    '<|python_tag|>{"name": "weather", "parameters": {"city": "Kiel"}}; {"name": "time", "parameters": {}}',
    { text: "", calls: [weather, time] },
  ],
  ["JSON that is no call", '{"city": "Kiel"}', { text: '{"city": "Kiel"}', calls: [] }],
  [
    "an unknown tool",
    '<tool_call>{"name": "rm"}</tool_call> x',
    { text: '<tool_call>{"name": "rm"}</tool_call> x', calls: [] },
  ],
  ["a broken call", '<tool_call>{"name": "time"', { text: '<tool_call>{"name": "time"', calls: [] }],
  ["other angles", "a <tool b < c", { text: "a <tool b < c", calls: [] }],
];

describe("ToolCallParser", () => {
  it.each(formats)("finds calls of %s, however the text is cut", (_, text, expected) => {
    for (let size = 1; size <= text.length; size++) {
      const parser = new ToolCallParser(["weather", "time"]);
      const got = { text: "", calls: [] as object[] };
      for (let i = 0; i <= text.length; i += size) {
        const { text: more, calls } = i < text.length ? parser.push(text.slice(i, i + size)) : parser.flush();
        got.text += more;
        got.calls.push(...calls);
      }
      const { text: more, calls } = parser.flush();
      expect({ text: got.text + more, calls: [...got.calls, ...calls] }).toEqual(expected);
    }
  });
});

const answer = 'Let me see.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Kiel"}}\n</tool_call>';
const template =
  "{% for tool in tools or [] %}[{{ tool.function.name }}]{% endfor %}" +
  "{% for m in messages %}{{ m.role }}: {{ m.content }}{% for c in m.tool_calls or [] %}<{{ c.function.arguments.city }}>{% endfor %}\n{% endfor %}" +
  "{% if add_generation_prompt %}assistant: {% endif %}";

function toolServer(): { server: NautilusServer; engine: FakeEngine } {
  const engine = new FakeEngine({
    answer: (prompt) => (prompt.includes("tool: ") ? "It is 9 degrees." : answer),
  });
  const chatTemplates = new ChatTemplates({
    bosToken: undefined,
    eosToken: undefined,
    padToken: undefined,
    unkToken: undefined,
    sepToken: undefined,
    chatTemplates: new Map([["default", template]]),
  });
  return { server: fakeServer({ models: [fakeModel(engine, { chatTemplates })] }), engine };
}

const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] } as const;
const tools = [{ type: "function" as const, function: { name: "weather", parameters } }];
const messages = [{ role: "user" as const, content: "Weather in Kiel?" }];

describe("tools", () => {
  it("shows them to the template and gives calls, whole and streamed", async () => {
    const { server, engine } = toolServer();
    await using _ = server;
    const [url] = await server.start();
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
    const request = { model: "fake", messages, tools, temperature: 0 };
    const { choices } = await client.chat.completions.create(request);
    expect(engine.tokenizer.decode(engine.requests.at(-1)?.prompt ?? [])).toMatch(
      /^\[weather\]user: Weather/,
    );
    expect(choices[0].finish_reason).toBe("tool_calls");
    expect(choices[0].message.content).toBe("Let me see.\n");
    expect(choices[0].message.tool_calls).toMatchObject([{ type: "function", function: weather }]);
    const streamed = await client.chat.completions.stream(request).finalChatCompletion();
    expect(streamed.choices[0].message.tool_calls?.[0]).toMatchObject({ function: weather });
    expect(streamed.choices[0].finish_reason).toBe("tool_calls");
    const none = await client.chat.completions.create({ ...request, tool_choice: "none" });
    expect(none.choices[0].message.content).toBe(answer);
  });

  it("holds the answer to a call where one must be made", async () => {
    const engine = new FakeEngine({ answer: () => '{"city":"Kiel"}' });
    await using server = fakeServer({ engine });
    const refused = await server.app.request("/v1/chat/completions", {
      method: "POST",
      body: JSON.stringify({ messages, tools, tool_choice: "required" }),
    });
    // Nemotron's own formats have no place for tools.
    expect(refused.status).toBe(400);
    const { server: withTemplate, engine: asked } = toolServer();
    await using _ = withTemplate;
    const choice = { type: "function", function: { name: "weather" } };
    const body = JSON.stringify({ messages, tools, tool_choice: choice, temperature: 0 });
    const made = await withTemplate.app.request("/v1/chat/completions", { method: "POST", body });
    expect(made.status).toBe(200);
    expect(asked.requests.at(-1)?.constraint).toEqual({ kind: "json-schema", schema: parameters });
  });
});

describe("Vercel's ai library", () => {
  it("generates, streams, and runs tools to the end", async () => {
    const { server } = toolServer();
    await using _ = server;
    const [url] = await server.start();
    const model = createOpenAICompatible({ name: "nautilus", baseURL: `${url}/v1`, includeUsage: true })(
      "fake",
    );
    const cities: string[] = [];
    const options = {
      model,
      prompt: "Weather in Kiel?",
      temperature: 0,
      maxRetries: 0,
      tools: {
        weather: tool({
          inputSchema: jsonSchema<{ city: string }>(parameters),
          execute: ({ city }) => {
            cities.push(city);
            return "9 degrees";
          },
        }),
      },
      stopWhen: ({ steps }: { steps: readonly unknown[] }) => steps.length >= 3,
    };
    const whole = await generateText(options);
    expect([whole.text, cities]).toEqual(["It is 9 degrees.", ["Kiel"]]);
    const stream = streamText(options);
    let text = "";
    for await (const piece of stream.textStream) text += piece;
    expect(text.endsWith("It is 9 degrees.")).toBe(true);
    expect((await stream.totalUsage).outputTokens).toBeGreaterThan(0);
  });
});

describe("openapi.json", () => {
  it("says with schemas what a request may hold", async () => {
    await using server = fakeServer();
    const document = (await (await server.app.request("/openapi.json")).json()) as {
      paths: Record<
        string,
        Record<string, { requestBody?: { content: Record<string, { schema: object }> } }>
      >;
    };
    const schema = document.paths["/v1/completions"]["post"].requestBody?.content["application/json"].schema;
    expect(schema).toMatchObject({ type: "object", required: ["prompt"], additionalProperties: false });
  });
});
