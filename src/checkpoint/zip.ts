/**
 * Zip archives whose entries are stored as they are (PKWARE APPNOTE 6.3, with zip64): what `torch.save` writes. Only the directory is
 * read; an entry is a part of the file, read in place. Compressed and encrypted entries are refused by name when they are opened.
 */
import { CheckpointError } from "../base/index.ts";
import { partOf, readWhole } from "./bytes.ts";
import type { ByteSource } from "./bytes.ts";

const endSignature = 0x06054b50;
const end64Signature = 0x06064b50;
const locator64Signature = 0x07064b50;
const entrySignature = 0x02014b50;
const localSignature = 0x04034b50;
const endBytes = 22;
const locatorBytes = 20;
const end64Bytes = 56;
const entryBytes = 46;
const localBytes = 30;
const longestComment = 0xffff;
const maxDirectoryBytes = 1 << 28;

interface Entry {
  readonly method: number;
  readonly isEncrypted: boolean;
  readonly byteLength: number;
  readonly localStart: number;
}

export interface ZipArchive {
  readonly path: string;
  names(): Iterable<string>;
  has(name: string): boolean;
  /** A stored entry, read in place. Throws CheckpointError. */
  open(name: string): ByteSource;
}

/** The first four bytes of any zip archive with entries. */
export function looksLikeZip(bytes: ByteSource): boolean {
  if (bytes.byteLength < 4) return false;
  return viewOf(bytes, 0, 4).getUint32(0, true) === localSignature;
}

/** Reads the directory of an archive. Throws CheckpointError. */
export function openZip(bytes: ByteSource): ZipArchive {
  const { path } = bytes;
  const entries = readDirectory(bytes);
  const entryOf = (name: string): Entry => {
    const entry = entries.get(name);
    if (entry === undefined) throw broken(path, `no entry '${name}'`);
    return entry;
  };
  return {
    path,
    names: () => entries.keys(),
    has: (name) => entries.has(name),
    open(name) {
      const entry = entryOf(name);
      if (entry.method !== 0) throw broken(path, `a compressed entry '${name}' (method ${entry.method})`);
      if (entry.isEncrypted) throw broken(path, `an encrypted entry '${name}'`);
      const local = viewOf(bytes, entry.localStart, localBytes);
      if (local.getUint32(0, true) !== localSignature) throw broken(path, `no local header of '${name}'`);
      const start = entry.localStart + localBytes + local.getUint16(26, true) + local.getUint16(28, true);
      return partOf(bytes, { path: `${path}:${name}`, start, byteLength: entry.byteLength });
    },
  };
}

function broken(path: string, got: string): CheckpointError {
  return new CheckpointError("zip", `expected a whole zip archive of stored entries at ${path}, got ${got}`, {
    hint: "download or save it again",
    fields: { path },
  });
}

function viewOf(bytes: ByteSource, start: number, byteLength: number): DataView {
  const buffer = new Uint8Array(byteLength);
  bytes.readInto(buffer, start);
  return new DataView(buffer.buffer);
}

interface Directory {
  start: number;
  byteLength: number;
  numEntries: number;
}

function findDirectory(bytes: ByteSource): Directory {
  const tailBytes = Math.min(bytes.byteLength, endBytes + longestComment);
  const tailStart = bytes.byteLength - tailBytes;
  const tail = viewOf(bytes, tailStart, tailBytes);
  let at = tailBytes - endBytes;
  while (at >= 0 && tail.getUint32(at, true) !== endSignature) at--;
  if (at < 0) throw broken(bytes.path, "no directory at its end");
  const directory = {
    numEntries: tail.getUint16(at + 10, true),
    byteLength: tail.getUint32(at + 12, true),
    start: tail.getUint32(at + 16, true),
  };
  const isLarge =
    directory.numEntries === 0xffff || directory.byteLength === 0xffffffff || directory.start === 0xffffffff;
  const locatorAt = tailStart + at - locatorBytes;
  if (!isLarge || locatorAt < 0) return directory;
  const locator = viewOf(bytes, locatorAt, locatorBytes);
  if (locator.getUint32(0, true) !== locator64Signature) return directory;
  const end64 = viewOf(bytes, u64(locator, 8), end64Bytes);
  if (end64.getUint32(0, true) !== end64Signature) throw broken(bytes.path, "a broken zip64 directory");
  return { numEntries: u64(end64, 32), byteLength: u64(end64, 40), start: u64(end64, 48) };
}

function u64(view: DataView, at: number): number {
  return Number(view.getBigUint64(at, true));
}

function readDirectory(bytes: ByteSource): Map<string, Entry> {
  const { path } = bytes;
  const { start, byteLength, numEntries } = findDirectory(bytes);
  const part = partOf(bytes, { path: `${path}:directory`, start, byteLength });
  const directory = readWhole(part, maxDirectoryBytes);
  const view = new DataView(directory.buffer);
  const entries = new Map<string, Entry>();
  let at = 0;
  for (let i = 0; i < numEntries; i++) {
    if (at + entryBytes > byteLength || view.getUint32(at, true) !== entrySignature) {
      throw broken(path, `${i} directory entries where its end says ${numEntries}`);
    }
    const nameBytes = view.getUint16(at + 28, true);
    const extraBytes = view.getUint16(at + 30, true);
    const extraAt = at + entryBytes + nameBytes;
    const next = extraAt + extraBytes + view.getUint16(at + 32, true);
    if (next > byteLength) throw broken(path, "a directory entry that is cut short");
    const name = new TextDecoder().decode(directory.subarray(at + entryBytes, extraAt));
    if (entries.has(name)) throw broken(path, `two entries named '${name}'`);
    const extra = new DataView(directory.buffer, extraAt, extraBytes);
    entries.set(name, readEntry(path, view, { at, extra }));
    at = next;
  }
  return entries;
}

function readEntry(path: string, view: DataView, { at, extra }: { at: number; extra: DataView }): Entry {
  const stored = view.getUint32(at + 20, true);
  const unpacked = view.getUint32(at + 24, true);
  const localStart = view.getUint32(at + 42, true);
  // The zip64 field holds, in this order, only those of the values that did not fit.
  const wide = zip64Values(extra);
  const widened = (value: number): number => {
    if (value !== 0xffffffff) return value;
    const next = wide.shift();
    if (next === undefined) throw broken(path, "a large entry without its zip64 sizes");
    return next;
  };
  const byteLength = widened(unpacked);
  const storedLength = widened(stored);
  const method = view.getUint16(at + 10, true);
  if (method === 0 && storedLength !== byteLength) throw broken(path, "a stored entry of two sizes");
  return {
    method,
    isEncrypted: (view.getUint16(at + 8, true) & 1) !== 0,
    byteLength,
    localStart: widened(localStart),
  };
}

function zip64Values(extra: DataView): number[] {
  for (let at = 0; at + 4 <= extra.byteLength;) {
    const id = extra.getUint16(at, true);
    const length = Math.min(extra.getUint16(at + 2, true), extra.byteLength - at - 4);
    if (id === 1) {
      return Array.from({ length: Math.floor(length / 8) }, (_, i) => u64(extra, at + 4 + i * 8));
    }
    at += 4 + length;
  }
  return [];
}
