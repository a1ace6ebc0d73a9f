/**
 * Writes an uncompressed tar (ustar, with pax records for long names and large members) as a stream into an open file. Times and owners are
 * fixed, so that equal contents give equal archives.
 */
import { invariant, writeAll } from "../base/index.ts";
import { tarBlockBytes } from "./tar.ts";

export interface TarMember {
  readonly name: string;
  readonly byteLength: number;
  /** The content in one or more pieces. */
  readonly pieces: () => Iterable<Uint8Array>;
}

/** What eleven octal digits hold. */
const largestOctalBytes = 8 ** 11;
const longestName = 100;

/** A member whose content is at hand. */
export function tarMember(name: string, content: string | Uint8Array): TarMember {
  const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
  return { name, byteLength: bytes.byteLength, pieces: () => [bytes] };
}

/** Writes the members and the archive's end. Throws what the disk throws. */
export function writeTar(descriptor: number, members: Iterable<TarMember>): void {
  const names = new Set<string>();
  for (const member of members) {
    invariant(!names.has(member.name), `one member named ${member.name}`);
    names.add(member.name);
    writeMember(descriptor, member);
  }
  writeAll(descriptor, new Uint8Array(2 * tarBlockBytes));
}

function writeMember(descriptor: number, { name, byteLength, pieces }: TarMember): void {
  const nameBytes = Buffer.byteLength(name);
  const records = [
    ...(nameBytes > longestName || nameBytes !== name.length ? [paxRecord("path", name)] : []),
    ...(byteLength >= largestOctalBytes ? [paxRecord("size", String(byteLength))] : []),
  ];
  if (records.length > 0) {
    const content = Buffer.concat(records);
    writeAll(descriptor, header({ name: "PaxHeader", byteLength: content.byteLength, type: "x" }));
    writePadded(descriptor, content.byteLength, [content]);
  }
  writeAll(
    descriptor,
    header({ name, byteLength: byteLength >= largestOctalBytes ? 0 : byteLength, type: "0" }),
  );
  writePadded(descriptor, byteLength, pieces());
}

function writePadded(descriptor: number, byteLength: number, pieces: Iterable<Uint8Array>): void {
  let written = 0;
  for (const piece of pieces) {
    writeAll(descriptor, piece);
    written += piece.byteLength;
  }
  invariant(written === byteLength, `${byteLength} bytes of a tar member, not ${written}`);
  writeAll(descriptor, new Uint8Array((tarBlockBytes - (byteLength % tarBlockBytes)) % tarBlockBytes));
}

/** "length key=value\n", where the length counts its own digits. */
function paxRecord(key: string, value: string): Buffer {
  const rest = ` ${key}=${value}\n`;
  const restBytes = Buffer.byteLength(rest);
  let length = restBytes;
  while (restBytes + String(length).length !== length) length = restBytes + String(length).length;
  return Buffer.from(`${length}${rest}`);
}

function header({ name, byteLength, type }: { name: string; byteLength: number; type: string }): Buffer {
  const block = Buffer.alloc(tarBlockBytes);
  const octal = (value: number, start: number, length: number): void => {
    block.write(value.toString(8).padStart(length - 1, "0"), start, "latin1");
  };
  block.write(Buffer.from(name).subarray(0, longestName).toString("latin1"), 0, "latin1");
  octal(0o644, 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  octal(byteLength, 124, 12);
  octal(0, 136, 12);
  block.fill(" ", 148, 156);
  block.write(type, 156, "latin1");
  block.write("ustar\u000000", 257, "latin1");
  const checksum = block.reduce((sum, byte) => sum + byte, 0);
  block.write(`${checksum.toString(8).padStart(6, "0")}\u0000 `, 148, "latin1");
  return block;
}
