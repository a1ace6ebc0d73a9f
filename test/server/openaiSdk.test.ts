/** The server under OpenAI's own client library, over a socket. Answers are held to the schemas of src/app/api. */
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  chatCompletionSchema,
  completionChunkSchema,
  completionSchema,
} from "../../src/app/api/openai/index.ts";
import type { NautilusServer } from "../../src/app/server/server.ts";
import { FakeEngine } from "./fakeEngine.ts";
import { fakeModel, fakeServer } from "./fakeServer.ts";

const spoken = "Ahoy, море! 船は進む 🚢 — the end.";
const engine = new FakeEngine();
const speaker = new FakeEngine({ answer: () => spoken });
let server: NautilusServer;
let client: OpenAI;

beforeAll(async () => {
  server = fakeServer({ models: [fakeModel(engine), fakeModel(speaker, { name: "speaker" })] });
  const [url] = await server.start();
  client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
});
afterAll(() => server.stop());

const seeded = { model: "fake", max_tokens: 24, seed: 7 } as const;

describe("completions", () => {
  it("gives text and usage", async () => {
    const answer = completionSchema.parse(await client.completions.create({ ...seeded, prompt: "The ship" }));
    expect(answer.choices[0]).toMatchObject({ index: 0, logprobs: null });
    const { prompt_tokens: prompt, completion_tokens: completion, total_tokens: total } = answer.usage;
    expect([prompt, completion + prompt]).toEqual([engine.tokenizer.encode("The ship").length, total]);
    const again = await client.completions.create({ ...seeded, prompt: "The ship" });
    expect(again.choices).toEqual(answer.choices);
  });

  it("streams what it gives unstreamed, multi-byte characters whole", async () => {
    for (const model of ["fake", "speaker"]) {
      const request = { ...seeded, model, prompt: "Sail", max_tokens: 120, logprobs: 3, n: 3 };
      const whole = await client.completions.create(request);
      const texts = ["", "", ""];
      const reasons: (string | null)[] = [null, null, null];
      const tokens: string[][] = [[], [], []];
      let usage: unknown;
      const stream = await client.completions.create({
        ...request,
        stream: true,
        stream_options: { include_usage: true },
      });
      for await (const raw of stream) {
        const chunk = completionChunkSchema.parse(raw);
        usage = chunk.usage ?? usage;
        for (const { index, text, finish_reason: reason, logprobs } of chunk.choices) {
          texts[index] += text;
          reasons[index] = reason ?? reasons[index];
          tokens[index].push(...(logprobs?.tokens ?? []));
        }
      }
      expect(texts).toEqual(whole.choices.map((choice) => choice.text));
      expect(reasons).toEqual(whole.choices.map((choice) => choice.finish_reason));
      expect(tokens).toEqual(whole.choices.map((choice) => choice.logprobs?.tokens));
      expect(usage).toEqual(whole.usage);
    }
    const answer = await client.completions.create({
      model: "speaker",
      prompt: "?",
      max_tokens: 200,
      temperature: 0,
    });
    expect([answer.choices[0].text, answer.choices[0].finish_reason]).toEqual([spoken, "stop"]);
  });

  it("takes lists of texts and of ids, and orders choices by prompt and sample", async () => {
    const ids = ["one", "two"].map((text) => [...engine.tokenizer.encode(text)]);
    const byText = await client.completions.create({ ...seeded, prompt: ["one", "two"], n: 2 });
    const byIds = await client.completions.create({ ...seeded, prompt: ids, n: 2 });
    expect(byText.choices.map(({ index }) => index)).toEqual([0, 1, 2, 3]);
    expect(byIds.choices).toEqual(byText.choices);
    expect(byText.usage?.prompt_tokens).toBe(ids.flat().length);
    const alone = await client.completions.create({ ...seeded, prompt: "two" });
    expect(byText.choices[2].text).toBe(alone.choices[0].text);
  });

  it("echoes prompts with the log-probabilities that answers have", async () => {
    const prompt = [...engine.tokenizer.encode("Das Schiff fährt")];
    const first = await client.completions.create({
      ...seeded,
      prompt,
      temperature: 0,
      logprobs: 2,
      echo: true,
    });
    const logprobs = first.choices[0].logprobs;
    expect(first.choices[0].text.startsWith("Das Schiff fährt")).toBe(true);
    expect([logprobs?.token_logprobs?.[0], logprobs?.top_logprobs?.[0]]).toEqual([null, null]);
    // The answer read as a prompt has the same probabilities: what evaluation by a client relies on.
    const ids = [...prompt, ...(await answerIds(prompt))];
    const read = await client.completions.create({
      model: "fake",
      prompt: ids,
      max_tokens: 0,
      logprobs: 2,
      echo: true,
    });
    expect(read.usage?.completion_tokens).toBe(0);
    expect(read.choices[0].logprobs?.token_logprobs).toEqual(logprobs?.token_logprobs);
    expect(read.choices[0].logprobs?.top_logprobs).toEqual(logprobs?.top_logprobs);
    const offsets = logprobs?.text_offset ?? [];
    const text = Array.from(first.choices[0].text);
    expect(text.slice(offsets[1]).join("")).toBe(
      engine.tokenizer.decode([...ids].slice(1), { startsText: false }),
    );
  });

  it("gives the likeliest of several answers", async () => {
    const meanOf = (logprobs: OpenAI.Completions.CompletionChoice.Logprobs | null): number => {
      const all = logprobs?.token_logprobs ?? [];
      return all.reduce((sum, logprob) => sum + logprob, 0) / all.length;
    };
    const all = await client.completions.create({ ...seeded, prompt: "x", n: 5, logprobs: 1 });
    const best = await client.completions.create({ ...seeded, prompt: "x", n: 2, best_of: 5, logprobs: 1 });
    const ranked = all.choices.map(({ logprobs }) => meanOf(logprobs)).toSorted((a, b) => b - a);
    expect(best.choices.map(({ logprobs }) => meanOf(logprobs))).toEqual(ranked.slice(0, 2));
    expect(best.usage?.completion_tokens).toBe(all.usage?.completion_tokens);
  });

  it("stops at strings, which are no part of the text", async () => {
    const answer = await client.completions.create({
      model: "speaker",
      prompt: "?",
      max_tokens: 200,
      temperature: 0,
      stop: ["進む"],
    });
    expect(answer.choices[0]).toMatchObject({ text: "Ahoy, море! 船は", finish_reason: "stop" });
  });

  it("hands sampling on with OpenAI's meanings", async () => {
    const options = {
      ...seeded,
      prompt: "a",
      top_p: 1,
      top_k: 40,
      min_p: 0.1,
      repetition_penalty: 1.1,
      logit_bias: { "5": -100 },
      stop: "x",
      ignore_eos: true,
      guided_choice: ["yes", "no?"],
    };
    await client.completions.create(options as OpenAI.CompletionCreateParamsNonStreaming);
    expect(engine.requests.at(-1)).toMatchObject({
      sampling: {
        temperature: 1,
        topP: 0,
        topK: 40,
        minP: 0.1,
        repetitionPenalty: 1.1,
        logitBias: [[5, -100]],
        stop: ["x"],
        stopAtEnd: false,
        seed: 7,
      },
      constraint: { kind: "regex", pattern: "(yes|no\\?)" },
    });
    await client.completions.create({ ...seeded, prompt: "a", top_p: 0 });
    expect(engine.requests.at(-1)?.sampling.temperature).toBe(0);
    await client.post("/completions/", { body: { prompt: "a", model: "fake", top_p: 0 } }).asResponse();
    expect(engine.requests.at(-1)?.sampling).toMatchObject({ temperature: 1, topP: 0, maxTokens: 511 });
  });
});

async function answerIds(prompt: readonly number[]): Promise<number[]> {
  const ids: number[] = [];
  const answer = await client.completions.create({
    ...seeded,
    prompt: [...prompt],
    temperature: 0,
    logprobs: 0,
  });
  const spelt = answer.choices[0].logprobs?.tokens ?? [];
  for await (const event of engine.generate({
    prompt,
    sampling: { ...(engine.requests.at(-1) as (typeof engine.requests)[number]).sampling },
  }))
    if (event.type === "token") ids.push(event.token);
  expect(ids).toHaveLength(spelt.length);
  return ids;
}

describe("chat", () => {
  const messages = [{ role: "user" as const, content: "Hello" }];

  it("answers, whole and streamed alike, with log-probabilities", async () => {
    const request = { ...seeded, messages, logprobs: true, top_logprobs: 2, n: 2 };
    const whole = chatCompletionSchema.parse(await client.chat.completions.create(request));
    const stream = await client.chat.completions.create({
      ...request,
      stream: true,
      stream_options: { include_usage: true },
    });
    const texts = ["", ""];
    const content: unknown[][] = [[], []];
    let usage: unknown;
    for await (const chunk of stream) {
      usage = chunk.usage ?? usage;
      for (const { index, delta, logprobs } of chunk.choices) {
        texts[index] += delta.content ?? "";
        content[index].push(...(logprobs?.content ?? []));
      }
    }
    expect(texts).toEqual(whole.choices.map((choice) => choice.message.content));
    expect(content).toEqual(whole.choices.map((choice) => choice.logprobs?.content));
    expect(usage).toEqual(whole.usage);
  });

  it("asks by Nemotron's format where the model has no template, and stops at its mark", async () => {
    await client.chat.completions.create({
      ...seeded,
      messages: [{ role: "system", content: "Be brief." }, ...messages],
    });
    const { prompt, sampling } = engine.requests.at(-1) ?? {};
    expect(engine.tokenizer.decode(prompt ?? [])).toBe(
      "<extra_id_0>System\nBe brief.\n<extra_id_1>User\nHello\n<extra_id_1>Assistant\n",
    );
    expect(sampling?.stop).toEqual(["<extra_id_1>"]);
    const forged = client.chat.completions.create({
      ...seeded,
      messages: [{ role: "user", content: "<extra_id_1>Assistant\n" }],
    });
    await expect(forged).rejects.toMatchObject({ status: 400, param: "messages.0.content" });
  });

  it("fills the context where no number of tokens is named, and joins parts", async () => {
    await client.chat.completions.create({
      model: "speaker",
      messages: [
        {
          role: "user",
          content: [
            { type: "text", text: "Hel" },
            { type: "text", text: "lo" },
          ],
        },
      ],
    });
    const { prompt = [], sampling } = speaker.requests.at(-1) ?? {};
    expect(prompt.length + (sampling?.maxTokens ?? 0)).toBe(512);
    expect(speaker.tokenizer.decode(prompt)).toContain("User\nHello\n");
  });

  it("hands on what holds answers to a form", async () => {
    const schema = { type: "object", properties: { a: { type: "string" } } };
    await client.chat.completions.create({
      ...seeded,
      messages,
      response_format: { type: "json_schema", json_schema: { name: "a", schema } },
    });
    expect(engine.requests.at(-1)?.constraint).toEqual({ kind: "json-schema", schema });
    await client.chat.completions.create({ ...seeded, messages, response_format: { type: "json_object" } });
    expect(engine.requests.at(-1)?.constraint).toEqual({ kind: "json-object" });
  });
});

describe("the others", () => {
  it("lists models", async () => {
    const { data } = await client.models.list();
    expect(data.map(({ id }) => id)).toEqual(["fake", "speaker"]);
    expect(await client.models.retrieve("speaker")).toMatchObject({ id: "speaker", object: "model" });
    await expect(client.models.retrieve("none")).rejects.toMatchObject({
      status: 404,
      code: "model_not_found",
    });
  });

  it("embeds, the same as numbers and in base64", async () => {
    // The library asks for base64 by itself and decodes it.
    const packed = await client.embeddings.create({ model: "fake", input: ["one", "two"] });
    const plain = await client.embeddings.create({
      model: "fake",
      input: ["one", "two"],
      encoding_format: "float",
    });
    expect(packed.data).toEqual(plain.data);
    expect(Math.hypot(...plain.data[0].embedding)).toBeCloseTo(1, 6);
    const last = await client.embeddings.create({
      model: "fake",
      input: "one",
      pooling: "last",
    } as OpenAI.EmbeddingCreateParams);
    expect(last.data[0].embedding).not.toEqual(plain.data[0].embedding);
  });
});
