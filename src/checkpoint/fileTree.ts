/**
 * A tree of read-only files: a folder on disk, the members of a tar, or a part of either. Formats that are folders of files (zarr,
 * torch_dist, rank folders) read through it and so need not know whether they lie in an archive.
 */
import { readdirSync } from "node:fs";
import { join, relative } from "node:path";
import { CheckpointError, nearest, withFileErrors } from "../base/index.ts";
import { openFileBytes, readWhole } from "./bytes.ts";
import type { ByteSource } from "./bytes.ts";

export interface FileTree {
  /** For errors. */
  readonly path: string;
  /** Paths of all files, relative, with "/" between the parts. */
  readonly files: readonly string[];
  has(file: string): boolean;
  /** Opens one file; the caller disposes it. Throws CheckpointError, FileError. */
  open(file: string): ByteSource;
}

/** The tree below a folder. Linked files are followed, linked folders are not. Throws FileError. */
export function folderTree(folder: string): FileTree {
  const entries = withFileErrors("checkpoint", "a readable folder", folder, () =>
    readdirSync(folder, { recursive: true, withFileTypes: true }),
  );
  const files = entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)).replaceAll("\\", "/"));
  return treeOf(folder, files, (file) => openFileBytes(join(folder, file)));
}

/** A tree of `files`, opened by `open`. */
export function treeOf(path: string, files: readonly string[], open: (file: string) => ByteSource): FileTree {
  const known = new Set(files);
  return {
    path,
    files: files.toSorted(),
    has: (file) => known.has(file),
    open(file) {
      if (known.has(file)) return open(file);
      const near = nearest(file, files);
      throw new CheckpointError("checkpoint", `expected a file '${file}' in ${path}, got none`, {
        ...(near === undefined ? {} : { hint: `there is '${near}'` }),
        fields: { path, file },
      });
    },
  };
}

/** The part of a tree below `folder`. */
export function subtree(tree: FileTree, folder: string): FileTree {
  const prefix = `${folder}/`;
  const files = tree.files.filter((file) => file.startsWith(prefix)).map((file) => file.slice(prefix.length));
  return treeOf(`${tree.path}${tree.path.endsWith("/") ? "" : "/"}${folder}`, files, (file) =>
    tree.open(prefix + file),
  );
}

/** The bytes of a small file of the tree. Throws CheckpointError, FileError. */
export function readTreeFile(
  tree: FileTree,
  file: string,
  { limitBytes = 1 << 26 }: { limitBytes?: number } = {},
): Uint8Array<ArrayBuffer> {
  using bytes = tree.open(file);
  return readWhole(bytes, limitBytes);
}

/** The text of a small UTF-8 file of the tree. Throws CheckpointError, FileError. */
export function readTreeText(tree: FileTree, file: string): string {
  return new TextDecoder().decode(readTreeFile(tree, file));
}
