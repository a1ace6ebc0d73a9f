import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { ChatTemplate, loadChatTemplates } from "./chatTemplate.ts";

const message = z.looseObject({ role: z.string(), content: z.string().nullable() });
const { templates, tokens, cases } = z
  .object({
    templates: z.record(z.string(), z.string()),
    tokens: z.record(z.string(), z.string()),
    cases: z.array(
      z.object({
        template: z.string(),
        messages: z.array(message),
        options: z.object({
          tools: z.array(z.unknown()).optional(),
          addGenerationPrompt: z.boolean().optional(),
          variables: z.record(z.string(), z.unknown()).optional(),
        }),
        text: z.string().optional(),
        refused: z.string().optional(),
      }),
    ),
  })
  .parse(
    JSON.parse(readFileSync(join(import.meta.dirname, "../../../test/fixtures/chat/cases.json"), "utf8")),
  );

let folder: string;
beforeAll(() => (folder = mkdtempSync(join(tmpdir(), "nautilus-chat-"))));
afterAll(() => rmSync(folder, { recursive: true }));

describe("ChatTemplate", () => {
  it.each(cases.map((row, i) => [`${i}, template ${row.template}`, row] as const))(
    "renders as transformers does: case %s",
    (_, { template, messages, options, text, refused }) => {
      const chat = new ChatTemplate(templates[template], tokens);
      const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
      if (refused === undefined) expect(chat.render(messages, given)).toBe(text);
      else expect(() => chat.render(messages, given)).toThrow(refused);
    },
  );

  it("refuses what is no template", () => {
    expect(() => new ChatTemplate("{% if %}")).toThrow(/\[chat template\] expected a Jinja template/);
    expect(() => new ChatTemplate("{% for a in 3 %}{% endfor %}").render([])).toThrow(
      /that the model's template takes/,
    );
  });
});

describe("loadChatTemplates", () => {
  const write = (name: string, content: unknown): void =>
    writeFileSync(join(folder, name), typeof content === "string" ? content : JSON.stringify(content));
  const hello = [{ role: "user", content: "Hi" }];

  it("takes a template from tokenizer_config.json, with the special tokens, and one from a file before it", () => {
    expect(loadChatTemplates(folder).names).toEqual([]);
    expect(() => loadChatTemplates(folder).choose()).toThrow(
      /'default' with the model, got none \(base models/,
    );
    write("special_tokens_map.json", { eos_token: { content: "</e>" }, bos_token: "no" });
    write("tokenizer_config.json", {
      bos_token: { content: "<s>", lstrip: false },
      chat_template: "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ pad_token }}",
    });
    expect(loadChatTemplates(folder).render(hello)).toBe("<s>Hi</e>");
    write("chat_template.jinja", "file {{ messages[0].content }}\n");
    expect(loadChatTemplates(folder).render(hello)).toBe("file Hi");
    rmSync(join(folder, "chat_template.jinja"));
  });

  it("chooses among named templates", () => {
    write("tokenizer_config.json", {
      chat_template: [
        { name: "default", template: "plain" },
        { name: "tool_use", template: "{{ tools | length }} tools" },
      ],
    });
    mkdirSync(join(folder, "additional_chat_templates"));
    write("additional_chat_templates/brief.jinja", "brief");
    const chats = loadChatTemplates(folder);
    expect(chats.names).toEqual(["default", "tool_use", "brief"]);
    expect(chats.render(hello)).toBe("plain");
    expect(chats.render(hello, { tools: [{}] })).toBe("1 tools");
    expect(chats.render(hello, { tools: [{}], name: "brief" })).toBe("brief");
    expect(() => chats.render(hello, { name: "long" })).toThrow(/'long' .*got default, tool_use, brief/);
  });

  it("says which field is no such thing", () => {
    write("tokenizer_config.json", { eos_token: 7 });
    expect(() => loadChatTemplates(folder)).toThrow(/tokenizer_config\.json: expected a usable eos_token/);
  });
});
