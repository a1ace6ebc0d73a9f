import { describe, expect, it } from "vitest";
import { serverAddress } from "./servedLanguageModel.ts";

describe("serverAddress", () => {
  it.each([
    ["localhost:8000", "http://localhost:8000/v1"],
    ["http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1"],
    ["https://host/v1/", "https://host/v1"],
    ["http://host/openai/v1/completions", "http://host/openai/v1"],
    ["host:8000/v2/models/demo", "http://host:8000/v2/models/demo"],
  ])("reads %s", (given, address) => {
    expect(serverAddress(given)).toBe(address);
  });

  it("knows what is no address", () => {
    expect(serverAddress("http://")).toBeUndefined();
    expect(serverAddress("a b")).toBeUndefined();
  });
});
