/**
 * Tar archives (POSIX.1-2017 "pax", ustar, and GNU's long names and large sizes): the headers are read once, members are parts of the
 * file read in place, so that nothing is unpacked. Names that would leave the folder, links and devices are refused.
 */
import { CheckpointError } from "../base/index.ts";
import { partOf, readWhole } from "./bytes.ts";
import type { ByteSource } from "./bytes.ts";
import { treeOf } from "./fileTree.ts";
import type { FileTree } from "./fileTree.ts";

export const tarBlockBytes = 512;
/** Names and pax records; far beyond any real one. */
const maxExtensionBytes = 1 << 20;

interface Header {
  readonly name: string;
  readonly type: string;
  readonly byteLength: number;
}

/** Fields that an extended header sets for the member after it. */
interface Extensions {
  name?: string;
  byteLength?: number;
}

/** Lists the members of an uncompressed tar; `bytes` must stay open while the tree is used. Throws CheckpointError. */
export function readTar(bytes: ByteSource): FileTree {
  const { path } = bytes;
  const members = new Map<string, { start: number; byteLength: number }>();
  const block = new Uint8Array(tarBlockBytes);
  let extensions: Extensions = {};
  let at = 0;
  // Two empty blocks end an archive; one, or the end of the file on a block, is accepted as tar does.
  while (at + tarBlockBytes <= bytes.byteLength) {
    bytes.readInto(block, at);
    if (block.every((byte) => byte === 0)) break;
    const header = readHeader(path, block, at);
    const start = at + tarBlockBytes;
    const byteLength = extensions.byteLength ?? header.byteLength;
    if (start + byteLength > bytes.byteLength) {
      throw broken(
        path,
        `${bytes.byteLength} bytes, too few for its member '${extensions.name ?? header.name}'`,
      );
    }
    const content = (): Uint8Array =>
      readWhole(partOf(bytes, { path: `${path}:header`, start, byteLength }), maxExtensionBytes);
    at = start + Math.ceil(byteLength / tarBlockBytes) * tarBlockBytes;
    if (header.type === "x") extensions = { ...extensions, ...readPax(path, content()) };
    else if (header.type === "L") extensions = { ...extensions, name: textOf(content()) };
    else if (header.type === "g" || header.type === "K") continue;
    else {
      addMember(path, members, { header, extensions, start, byteLength });
      extensions = {};
    }
  }
  if (members.size === 0) throw broken(path, "no members");
  return treeOf(path, [...members.keys()], (file) => {
    const member = members.get(file) ?? { start: 0, byteLength: 0 };
    return partOf(bytes, { path: `${path}:${file}`, ...member });
  });
}

function addMember(
  path: string,
  members: Map<string, { start: number; byteLength: number }>,
  {
    header,
    extensions,
    ...range
  }: { header: Header; extensions: Extensions; start: number; byteLength: number },
): void {
  const raw = extensions.name ?? header.name;
  if (header.type === "5") return;
  if (header.type !== "0" && header.type !== "7") {
    throw broken(path, `a link or special file '${raw}'`, "only plain files belong in a checkpoint");
  }
  const name = safeName(path, raw);
  if (members.has(name)) throw broken(path, `two members named '${name}'`);
  members.set(name, range);
}

function broken(path: string, got: string, hint = "download or save it again"): CheckpointError {
  return new CheckpointError("tar", `expected a whole tar archive at ${path}, got ${got}`, {
    hint,
    fields: { path },
  });
}

/** The name without "./"; one that points out of its folder is refused. */
function safeName(path: string, raw: string): string {
  const parts = raw.split("/").filter((part) => part !== "." && part !== "");
  if (raw.startsWith("/") || raw.includes("\\") || parts.includes("..") || parts.length === 0) {
    throw broken(path, `a member named '${raw}'`, "its name reaches out of the archive's folder");
  }
  return parts.join("/");
}

function textOf(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
}

function readHeader(path: string, block: Uint8Array, at: number): Header {
  const field = (start: number, length: number): Uint8Array => block.subarray(start, start + length);
  const checksum = block.reduce((sum, byte, i) => sum + (i >= 148 && i < 156 ? 32 : byte), 0);
  if (numberOf(field(148, 8)) !== checksum) throw broken(path, `no member header at byte ${at}`);
  const byteLength = numberOf(field(124, 12));
  if (!Number.isSafeInteger(byteLength) || byteLength < 0)
    throw broken(path, "a member of an impossible size");
  const prefix = textOf(field(257, 5)) === "ustar" && block[262] === 0 ? textOf(field(345, 155)) : "";
  const name = textOf(field(0, 100));
  const type = String.fromCharCode(block[156]);
  return { name: prefix === "" ? name : `${prefix}/${name}`, type: type === "\0" ? "0" : type, byteLength };
}

/** Octal text, or GNU's big-endian binary where the first bit is set. */
function numberOf(bytes: Uint8Array): number {
  if ((bytes[0] & 0x80) === 0) {
    const text = textOf(bytes).trim();
    return /^[0-7]*$/.test(text) ? Number.parseInt(text === "" ? "0" : text, 8) : NaN;
  }
  return bytes.reduce((value, byte, i) => value * 256 + (i === 0 ? byte & 0x7f : byte), 0);
}

/** Records "length key=value\n"; only path and size matter here. */
function readPax(path: string, bytes: Uint8Array): Extensions {
  const extensions: Extensions = {};
  for (let at = 0; at < bytes.byteLength && bytes[at] !== 0;) {
    const space = bytes.indexOf(0x20, at);
    const length = space < 0 ? NaN : Number(new TextDecoder().decode(bytes.subarray(at, space)));
    const record = new TextDecoder().decode(bytes.subarray(space + 1, at + length - 1));
    const equals = record.indexOf("=");
    if (!(length > 0) || at + length > bytes.byteLength || equals < 0)
      throw broken(path, "a broken pax header");
    const key = record.slice(0, equals);
    const value = record.slice(equals + 1);
    if (key === "path") extensions.name = value;
    if (key === "size") {
      if (!/^\d{1,15}$/.test(value)) throw broken(path, "a member of an impossible size");
      extensions.byteLength = Number(value);
    }
    at += length;
  }
  return extensions;
}
