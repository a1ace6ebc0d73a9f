/** Reads a written checkpoint back and holds it against its source: configuration, names, shapes, and every byte of the weights. */
import { dirname } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { CheckpointError, formatShape } from "../../../base/index.ts";
import { tensorPieces } from "../../../checkpoint/index.ts";
import type { TensorSource } from "../../../checkpoint/index.ts";
import type { DecoderConfig } from "../../../models/index.ts";
import { openSource } from "./source.ts";
import type { ConversionSource } from "./source.ts";

const component = "convert";

/** Throws CheckpointError naming the first thing that differs. */
export async function verifyConversion(source: ConversionSource, path: string): Promise<void> {
  using written = await openSource(path, { dtype: undefined, temporaryFolder: dirname(path) });
  const [expected, got] = [computation(source.config), computation(written.config)];
  if (!isDeepStrictEqual(expected, got)) {
    throw differs(path, "configuration", { expected: JSON.stringify(expected), got: JSON.stringify(got) });
  }
  compareNames(source.weights, written.weights);
  for (const name of source.weights.names()) compareTensor(source.weights, written.weights, name);
}

/** What a configuration says of the computation: not every format knows its dialect or its token ids. */
function computation(config: DecoderConfig): unknown {
  const { family: _family, bosId: _bos, eosId: _eos, padId: _pad, ...rest } = config;
  // Through JSON, so that a field that is absent is one that is undefined.
  return JSON.parse(JSON.stringify(rest));
}

function compareNames(source: TensorSource, written: TensorSource): void {
  const [expected, got] = [source, written].map((weights) => [...weights.names()].toSorted().join(" "));
  if (expected !== got) throw differs(written.path, "names of the tensors", { expected, got });
}

function compareTensor(source: TensorSource, written: TensorSource, name: string): void {
  const describe = ({ dtype, shape }: { dtype: string; shape: readonly number[] }): string =>
    `${dtype} ${formatShape(shape)}`;
  const [expected, got] = [describe(source.info(name)), describe(written.info(name))];
  if (expected !== got) throw differs(written.path, name, { expected, got });
  const others = tensorPieces(written, name);
  let offset = 0;
  for (const piece of tensorPieces(source, name)) {
    const other = others.next().value;
    if (other === undefined || Buffer.compare(piece, other) !== 0) {
      throw differs(written.path, name, {
        expected: "the source's bytes",
        got: `others from byte ${offset} on`,
      });
    }
    offset += piece.byteLength;
  }
}

function differs(
  path: string,
  what: string,
  { expected, got }: { expected: string; got: string },
): CheckpointError {
  return new CheckpointError(component, `${what} of ${path}: expected ${expected}, got ${got}`, {
    hint: "the disk or the memory is at fault; convert again",
    fields: { what },
  });
}
