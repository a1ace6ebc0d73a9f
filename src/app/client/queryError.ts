/** A server that a client talks to could not be reached, refused, or answered something else than its protocol says. */
import { NautilusError } from "../../base/index.ts";

export class QueryError extends NautilusError {
  override readonly code = "query";
}
