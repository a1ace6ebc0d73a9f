/**
 * A file of `torch.save({})`: what a distributed checkpoint must have as `common.pt` even when nothing but tensors was saved. A zip archive of
 * stored entries (PKWARE APPNOTE 6.3), as torch.load reads it.
 */
import { crc32 } from "node:zlib";

const entrySignature = 0x02014b50;
const localSignature = 0x04034b50;
const endSignature = 0x06054b50;
/** PROTO 2, EMPTY_DICT, STOP. */
const emptyDict = Uint8Array.of(0x80, 2, 0x7d, 0x2e);
/** 1980-01-01, the first day a zip archive can name. */
const firstDay = 0x21;

/** The bytes of the file. */
export function emptyTorchFile(): Uint8Array {
  const entries = [
    ["common/data.pkl", emptyDict],
    ["common/byteorder", Buffer.from("little")],
    ["common/version", Buffer.from("3\n")],
  ] as const;
  const locals: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const [name, content] of entries) {
    const nameBytes = Buffer.from(name);
    const fields = entryFields(content, nameBytes.byteLength);
    const local = Buffer.alloc(30);
    local.writeUInt32LE(localSignature);
    fields.copy(local, 4);
    const entry = Buffer.alloc(46);
    entry.writeUInt32LE(entrySignature);
    fields.copy(entry, 6);
    entry.writeUInt32LE(offset, 42);
    locals.push(local, nameBytes, Buffer.from(content));
    directory.push(entry, nameBytes);
    offset += local.byteLength + nameBytes.byteLength + content.byteLength;
  }
  const directoryBytes = directory.reduce((sum, part) => sum + part.byteLength, 0);
  const end = Buffer.alloc(22);
  end.writeUInt32LE(endSignature);
  end.writeUInt16LE(entries.length, 8);
  end.writeUInt16LE(entries.length, 10);
  end.writeUInt32LE(directoryBytes, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...locals, ...directory, end]);
}

/** The 26 bytes that a local header and a directory entry have in common: version to the length of the extra field. */
function entryFields(content: Uint8Array, nameLength: number): Buffer {
  const fields = Buffer.alloc(26);
  fields.writeUInt16LE(20, 0);
  fields.writeUInt16LE(firstDay, 8);
  fields.writeUInt32LE(crc32(content), 10);
  fields.writeUInt32LE(content.byteLength, 14);
  fields.writeUInt32LE(content.byteLength, 18);
  fields.writeUInt16LE(nameLength, 22);
  return fields;
}
