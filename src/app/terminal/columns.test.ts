import { expect, it } from "vitest";
import { labelled } from "./columns.ts";

it("breaks at words and puts the next lines below the first", () => {
  expect(labelled("who  ", "a nautilus of the deep sea", 20)).toBe("who  a nautilus of\n     the deep sea\n");
});

it("keeps a word that is longer than a line whole, and an empty text as a line", () => {
  expect(labelled("at ", "/a/very/long/path x", 10)).toBe("at /a/very/long/path\n   x\n");
  expect(labelled("at ", "", 10)).toBe("at \n");
});
