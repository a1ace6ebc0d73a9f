/** Plain views of a source: some of its tensors under other names, or all of them with a word at every read. */
import { throughTo } from "./megatron/canonical.ts";
import { tensorTable } from "./source.ts";
import type { StoredTensor, TensorSource } from "./source.ts";

/** Tensors of `source` by new name, in its own order. Disposing the view disposes the source. */
export function renamedView(source: TensorSource, storedNames: ReadonlyMap<string, string>): TensorSource {
  const newNames = new Map([...storedNames].map(([name, stored]) => [stored, name]));
  const table = new Map<string, StoredTensor>();
  for (const stored of source.names()) {
    const name = newNames.get(stored);
    if (name === undefined) continue;
    table.set(name, { ...throughTo(source, stored), fileRange: () => source.fileRange?.(stored) });
  }
  return viewOf(source, table);
}

/** The same tensors; `onRead` is told of every read, its tensor and its length in bytes. */
export function observedView(
  source: TensorSource,
  onRead: (name: string, byteLength: number) => void,
): TensorSource {
  const table = new Map<string, StoredTensor>();
  for (const name of source.names()) {
    const tensor = throughTo(source, name);
    table.set(name, {
      ...tensor,
      readRange(into, byteOffset) {
        tensor.readRange(into, byteOffset);
        onRead(name, into.byteLength);
      },
      fileRange() {
        const range = source.fileRange?.(name);
        return range && { ...range, onRead: (byteLength) => onRead(name, byteLength) };
      },
    });
  }
  return viewOf(source, table);
}

function viewOf(source: TensorSource, table: ReadonlyMap<string, StoredTensor>): TensorSource {
  return tensorTable(source.path, table, { metadata: source.metadata, release: () => source.dispose() });
}
