/**
 * A SentencePiece model file (BPE) out of pieces with scores and types: the inverse of reading one. Field numbers: google/sentencepiece,
 * src/sentencepiece_model.proto; encoding: Protocol Buffers, "Encoding".
 */
export interface GgufTokenIds {
  readonly bos: number | undefined;
  readonly eos: number | undefined;
  readonly pad: number | undefined;
  readonly unknown: number | undefined;
}

export interface PieceFields {
  readonly tokens: readonly string[];
  readonly scores: readonly number[];
  /** SentencePiece's numbers; a piece without one is a normal piece. */
  readonly types: readonly number[];
  readonly ids: GgufTokenIds;
  readonly addsPrefix: boolean;
  readonly removesSpaces: boolean;
}

const bytePiece = 6;
const bpeModel = 2;

/** The file's bytes. */
export function sentencePieceModel({
  tokens,
  scores,
  types,
  ids,
  addsPrefix,
  removesSpaces,
}: PieceFields): Uint8Array {
  const pieces = tokens.map((token, id) =>
    bytesField(1, [text(1, token), float(2, scores[id] ?? 0), varint(3, types[id] ?? 1)]),
  );
  const named = (number: number, id: number | undefined): Uint8Array[] =>
    id === undefined || tokens[id] === undefined ? [] : [text(number, tokens[id])];
  const trainer = bytesField(2, [
    varint(3, bpeModel),
    varint(35, types.includes(bytePiece) ? 1 : 0),
    ...named(45, ids.unknown),
    ...named(46, ids.bos),
    ...named(47, ids.eos),
    ...named(48, ids.pad),
  ]);
  const normalizer = bytesField(3, [
    text(1, "identity"),
    varint(3, addsPrefix ? 1 : 0),
    varint(4, removesSpaces ? 1 : 0),
    varint(5, 1),
  ]);
  return Buffer.concat([...pieces, trainer, normalizer]);
}

function varintBytes(value: number): number[] {
  const bytes: number[] = [];
  let left = value;
  for (; left >= 0x80; left = Math.floor(left / 0x80)) bytes.push((left % 0x80) | 0x80);
  bytes.push(left);
  return bytes;
}

/** A field's tag: its number and wire type. */
function tag(number: number, wireType: 0 | 2 | 5): number[] {
  return varintBytes(number * 8 + wireType);
}

function varint(number: number, value: number): Uint8Array {
  return Uint8Array.from([...tag(number, 0), ...varintBytes(value)]);
}

function float(number: number, value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setFloat32(0, value, true);
  return Uint8Array.from([...tag(number, 5), ...bytes]);
}

function text(number: number, value: string): Uint8Array {
  return bytesField(number, [Buffer.from(value, "utf8")]);
}

function bytesField(number: number, parts: readonly Uint8Array[]): Uint8Array {
  const content = Buffer.concat(parts);
  return Buffer.concat([Uint8Array.from([...tag(number, 2), ...varintBytes(content.byteLength)]), content]);
}
