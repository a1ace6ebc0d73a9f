/** Embedding: rows of a table by token. Also gathers rows of any matrix (the last position of each prompt, say). */
import { ShapeError, formatShape } from "../../base/index.ts";
import type { Context } from "../context.ts";
import { Parameter } from "../parameter.ts";
import { record } from "../tape.ts";
import type { Tensor } from "../tensor.ts";

/** weight (V, C) at tokens i32 (N) -> (N, C). The gradient goes to `weight` when it is a trainable parameter. Throws ShapeError. */
export function embedding(context: Context, tokens: Tensor, weight: Tensor): Tensor {
  if (weight.shape.length !== 2 || tokens.dtype !== "i32") {
    throw new ShapeError(
      "embedding",
      `expected a weight (V, C) and i32 tokens, got ${formatShape(weight.shape)} and ${tokens.dtype}`,
    );
  }
  const [vocabSize, width] = weight.shape;
  const numRows = tokens.numElements;
  const y = context.empty([numRows, width], weight.dtype);
  context.device.run("embeddingForward", { tokens, weight, y, numRows, width, vocabSize });
  record(context, [y], {
    name: "embedding",
    inputs: [weight],
    save: [tokens],
    backward: ([dy], [saved]) => {
      if (dy !== undefined && weight instanceof Parameter) {
        const dweight = weight.gradientSum();
        context.device.run("embeddingBackward", {
          tokens: saved.get(),
          dy,
          dweight,
          numRows,
          width,
          vocabSize,
        });
      }
      return [undefined];
    },
  });
  return y;
}
