/** API keys: kept and compared as digests of equal length, so that the time of a comparison tells nothing. */
import { createHash, timingSafeEqual } from "node:crypto";
import { Refusal } from "./refusal.ts";

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

export class ApiKeys {
  readonly #digests: readonly Buffer[];

  constructor(keys: readonly string[]) {
    this.#digests = keys.map(digest);
  }

  /** Whether callers need a key. */
  get isRequired(): boolean {
    return this.#digests.length > 0;
  }

  /** Lets pass who names a key, with or without "Bearer " before it. Throws a refusal (401). */
  check(credential: string | undefined): void {
    if (!this.isRequired) return;
    const given = digest(credential?.replace(/^Bearer +/i, "") ?? "");
    let isKnown = false;
    // Every key is compared: where the right one stands tells nothing either.
    for (const known of this.#digests) isKnown = timingSafeEqual(known, given) || isKnown;
    if (isKnown) return;
    throw new Refusal(
      401,
      `expected an API key, got ${credential === undefined ? "none" : "an unknown one"}`,
      {
        hint: "send 'Authorization: Bearer KEY'",
        reason: "invalid_api_key",
      },
    );
  }
}
