/** Server-sent events: lines made one by one as their reader takes them. */
import type { RequestContext } from "../requestContext.ts";

const utf8 = new TextEncoder();

export const eventStreamHeaders = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-cache, no-transform",
  // nginx and its kin would gather answers before passing them on.
  "x-accel-buffering": "no",
};

export function eventLine(data: unknown): string {
  return `data: ${typeof data === "string" ? data : JSON.stringify(data)}\n\n`;
}

/**
 * A body of `lines`. When its reader goes away the request is aborted, which ends the lines too. Lines must not throw: what goes wrong
 * midway is a line of its own.
 */
export function eventStream(
  context: RequestContext,
  lines: AsyncGenerator<string, void, undefined>,
): ReadableStream<Uint8Array> {
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const { done, value } = await lines.next();
        if (done === true) {
          controller.close();
          context.finish(200);
        } else controller.enqueue(utf8.encode(value));
      },
      async cancel() {
        context.abortGone();
        await lines.return();
        context.finish(499);
      },
    },
    // Nothing is made before it is asked for.
    { highWaterMark: 0 },
  );
}
