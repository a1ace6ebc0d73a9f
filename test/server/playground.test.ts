/** The playground in a real browser: typed into, clicked, and read. With NAUTILUS_SCREENSHOTS=folder it also leaves pictures. */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import type { Browser, Page } from "playwright-core";
import { build } from "vite";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { NautilusServer } from "../../src/app/server/server.ts";
import { FakeEngine } from "./fakeEngine.ts";
import { fakeModel, fakeServer } from "./fakeServer.ts";

const executable = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find((path) =>
  existsSync(path),
);
if (executable === undefined) console.log("playground tests skipped: no Chromium on this machine");
const pictures = process.env["NAUTILUS_SCREENSHOTS"];
const spoken =
  "to keep sailing: 船は進む, море шумит 🚢.\nEvery harbour is a beginning, and every storm is a teacher of patience. " +
  "The stars count the sailors while the captain counts the stars, and nobody is in a hurry.";

let server: NautilusServer;
let browser: Browser;
let pages: string;
let url: string;
const faults: string[] = [];

async function openPage(
  size = { width: 1280, height: 900 },
  colorScheme: "light" | "dark" = "light",
): Promise<Page> {
  const page = await (await browser.newContext({ viewport: size, colorScheme })).newPage();
  page.on("pageerror", (error) => faults.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error") faults.push(message.text());
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(url) && !request.url().startsWith("data:"))
      faults.push(`asked ${request.url()}`);
  });
  await page.goto(url);
  return page;
}

async function picture(page: Page, name: string): Promise<void> {
  if (pictures !== undefined) await page.screenshot({ path: join(pictures, `${name}.png`), fullPage: true });
}

describe.skipIf(executable === undefined)("playground", () => {
  beforeAll(async () => {
    pages = mkdtempSync(join(tmpdir(), "nautilus-pages-"));
    const configFile = fileURLToPath(new URL("../../vite.config.ts", import.meta.url));
    await build({ configFile, logLevel: "error", build: { outDir: pages } });
    const engine = new FakeEngine({
      tokenMs: 4,
      answer: (prompt) => (prompt.includes("random") ? undefined : spoken),
    });
    const slow = new FakeEngine({ tokenMs: 40 });
    server = fakeServer({ models: [fakeModel(engine), fakeModel(slow, { name: "slow" })], pages });
    [url] = await server.start();
    browser = await chromium.launch({
      executablePath: executable ?? "",
      args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"],
    });
  });
  afterAll(async () => {
    await browser?.close();
    await server?.stop();
    rmSync(pages, { recursive: true, force: true });
  });

  it("continues a prompt, shades tokens, and shows alternatives to mouse and keyboard", async () => {
    const page = await openPage();
    await page.getByLabel("Prompt", { exact: true }).fill("The meaning of life is ");
    await page.getByRole("button", { name: "Continue" }).click();
    await page.getByText("nobody is in a hurry.").waitFor();
    const text = page.getByRole("group", { name: /Generated text/ });
    expect(await text.textContent()).toBe(`The meaning of life is ${spoken}`);
    await page.getByText(/\d+ tokens · first after/).waitFor();
    await page.locator(".token").nth(3).hover();
    await page.getByRole("status", { name: "Alternatives" }).waitFor();
    expect(
      await page.getByRole("status", { name: "Alternatives" }).locator("tr").count(),
    ).toBeGreaterThanOrEqual(5);
    await picture(page, "complete-light-wide");
    await text.focus();
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowRight");
    const chosen = await page.locator(".token.chosen").textContent();
    // From where the mouse was: the fourth.
    expect(chosen).toBe(await page.locator(".token").nth(5).textContent());
    await page.getByRole("button", { name: "Go on from here" }).click();
    expect(await page.getByLabel("Prompt", { exact: true }).inputValue()).toBe(
      `The meaning of life is ${spoken}`,
    );
    await page.context().close();
  });

  it("chats by keyboard, streams, and stops with Escape", async () => {
    const page = await openPage();
    await page.getByRole("button", { name: "Chat" }).click();
    await page.getByLabel("Message", { exact: true }).fill("Why do we sail?");
    await page.keyboard.press("Control+Enter");
    await page.getByText("nobody is in a hurry.").waitFor();
    expect(await page.locator(".turn.user").textContent()).toContain("Why do we sail?");
    await picture(page, "chat-light-wide");
    await page.getByRole("combobox", { name: "Model" }).selectOption("slow");
    await page.getByLabel("Message", { exact: true }).fill("random words");
    await page.keyboard.press("Control+Enter");
    await page.locator(".turn.assistant").nth(1).locator(".token").nth(2).waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Send" }).waitFor();
    await expect.poll(() => server.context.admission.numHeld).toBe(0);
    await page.context().close();
  });

  it("remembers prompts in this browser, shows the card and the load", async () => {
    const page = await openPage();
    await page.getByLabel("Prompt", { exact: true }).fill("random seas");
    await page.getByLabel("Theme").selectOption("dark");
    await page.getByRole("button", { name: "Continue" }).click();
    await page.getByRole("button", { name: "Go on from here" }).waitFor();
    await page.getByText("Model card").click();
    await page.getByText("# A fake model").waitFor();
    await page.getByText("License", { exact: true }).click();
    await page.getByText("Apache-2.0").waitFor();
    await expect
      .poll(async () => Number(await page.getByTestId("tokens-per-second").textContent()))
      .toBeGreaterThan(0);
    await page.locator(".token").nth(5).hover();
    await picture(page, "complete-dark-wide");
    await page.reload();
    expect(await page.getByLabel("Prompt", { exact: true }).inputValue()).toBe("random seas");
    expect(await page.getByLabel("Theme").inputValue()).toBe("dark");
    expect(await page.getByLabel("Recent prompts").locator("option").count()).toBe(2);
    await page.context().close();
  });

  it("fits a phone, light and dark, without scrolling sideways", async () => {
    for (const scheme of ["light", "dark"] as const) {
      const page = await openPage({ width: 390, height: 844 }, scheme);
      await page.getByRole("button", { name: "Continue" }).click();
      await page.getByText("nobody is in a hurry.").waitFor();
      const overflow = await page.evaluate("document.documentElement.scrollWidth - innerWidth");
      expect(overflow).toBe(0);
      await picture(page, `complete-${scheme}-phone`);
      await page.context().close();
    }
  });

  it("says what the server refuses", async () => {
    const page = await openPage();
    await page.getByLabel("Prompt", { exact: true }).fill("word ".repeat(900));
    // The refusal shows in the console too, as any answer with such a status does.
    const before = faults.length;
    await page.getByRole("button", { name: "Continue" }).click();
    expect(await page.getByRole("alert").textContent()).toContain("expected at most 512 tokens");
    expect(faults.splice(before).every((fault) => fault.includes("400"))).toBe(true);
    await page.context().close();
  });

  it("asks nobody else for anything, and breaks no rule of its policy", () => {
    expect(faults).toEqual([]);
  });
});
