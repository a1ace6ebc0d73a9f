/** A server with a certificate: HTTP and gRPC over TLS to clients that trust it, and to none that do not. */
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { request } from "node:https";
import type { RequestOptions } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { Client, credentials, status } from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadInferenceService } from "../../src/app/kserve/index.ts";
import type { Message } from "../../src/app/kserve/index.ts";
import type { NautilusServer } from "../../src/app/server/server.ts";
import { fakeServer } from "./fakeServer.ts";

const hasOpenssl = spawnSync("openssl", ["version"]).status === 0;
if (!hasOpenssl) console.warn("skipped: TLS needs the program openssl to make a certificate");

let folder: string;
let server: NautilusServer;
let certificate: Buffer;
let http: string;
let grpc: string;

beforeAll(async () => {
  if (!hasOpenssl) return;
  folder = mkdtempSync(join(tmpdir(), "nautilus-tls-"));
  const [certFile, keyFile] = ["cert.pem", "key.pem"].map((name) => join(folder, name));
  const wanted = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost";
  const names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
  const made = spawnSync("openssl", [...wanted.split(" "), ...names, "-keyout", keyFile, "-out", certFile]);
  expect(made.status, made.stderr.toString()).toBe(0);
  certificate = readFileSync(certFile);
  server = fakeServer({ options: { grpcPort: 0, tls: { certFile, keyFile } } });
  [http, grpc] = await server.start();
});
afterAll(async () => {
  await server?.stop();
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
});

async function ask(path: string, body: object | undefined, options: RequestOptions) {
  const asked = request(http + path, {
    method: body === undefined ? "GET" : "POST",
    agent: false,
    servername: "localhost",
    ...options,
  });
  asked.setHeader("content-type", "application/json");
  asked.end(body === undefined ? undefined : JSON.stringify(body));
  const [answer] = await once(asked, "response");
  return { status: answer.statusCode, text: await text(answer) };
}

/** The text of an answer, or of one of its events. */
function textOf(json: string): string {
  return (JSON.parse(json) as { choices: { text: string }[] }).choices[0].text;
}

function serverReady(rootCertificate: Buffer | null): Promise<Message> {
  const client = new Client(grpc.replace("grpcs://", ""), credentials.createSsl(rootCertificate));
  const { path, requestSerialize, responseDeserialize } = loadInferenceService()["ServerReady"];
  return new Promise<Message>((resolve, reject) => {
    const options = { deadline: Date.now() + 5_000 };
    client.makeUnaryRequest(path, requestSerialize, responseDeserialize, {}, options, (error, answer) => {
      if (error === null && answer !== undefined) resolve(answer);
      else reject(error ?? new Error("no answer"));
    });
  }).finally(() => client.close());
}

describe.skipIf(!hasOpenssl)("TLS", () => {
  it("answers HTTP, whole and streamed", async () => {
    expect(http).toMatch(/^https:/);
    expect((await ask("/health", undefined, { ca: certificate })).status).toBe(200);
    const body = { model: "fake", prompt: "Ship", max_tokens: 8, temperature: 0 };
    const whole = await ask("/v1/completions", body, { ca: certificate });
    const expected = textOf(whole.text);
    const streamed = await ask("/v1/completions", { ...body, stream: true }, { ca: certificate });
    const lines = streamed.text.split("\n\n").filter((line) => line !== "");
    expect(lines.at(-1)).toBe("data: [DONE]");
    const pieces = lines.slice(0, -1).map((line) => textOf(line.slice("data: ".length)));
    expect(pieces.join("")).toBe(expected);
    expect(expected).not.toBe("");
  });

  it("answers gRPC", async () => {
    expect(grpc).toMatch(/^grpcs:/);
    expect(await serverReady(certificate)).toMatchObject({ ready: true });
  });

  it("is not taken for another by clients that do not trust it", async () => {
    await expect(ask("/health", undefined, {})).rejects.toMatchObject({
      code: "DEPTH_ZERO_SELF_SIGNED_CERT",
    });
    await expect(serverReady(null)).rejects.toMatchObject({ code: status.UNAVAILABLE });
  });

  it("takes nothing in plain text", async () => {
    await expect(fetch(`${http.replace("https:", "http:")}/health`)).rejects.toThrow(/fetch failed/);
  });
});
