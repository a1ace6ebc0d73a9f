/**
 * The Megatron indexed data set on disk: `<prefix>.bin` holds token ids without a header, `<prefix>.idx` where each
 * sequence lies. Little endian throughout, as every machine Node 24 is built for that we serve.
 *
 * `.idx`: 9 bytes "MMIDIDX\0\0"; u64 version 1; u8 dtype code; u64 S sequences; u64 D boundaries; int32 lengths[S] in
 * tokens; int64 pointers[S] in bytes; int64 boundaries[D] (first sequence of each document, and S); optional int8 modes[S].
 * Source: the file layout of Megatron-LM's megatron/core/datasets/indexed_dataset.py.
 */
import { DataError } from "../../base/index.ts";

export const indexMagic = Buffer.from("MMIDIDX\0\0", "latin1");
export const indexVersion = 1;
export const indexHeaderBytes = 34;

export type TokenDtype = "uint8" | "int8" | "int16" | "int32" | "int64" | "uint16";

/** What a dtype is called in `.idx`, and its width. 6 and 7 are float64 and float32, which no token file uses. */
export const tokenDtypes: Readonly<Record<TokenDtype, { code: number; bytes: number }>> = {
  uint8: { code: 1, bytes: 1 },
  int8: { code: 2, bytes: 1 },
  int16: { code: 3, bytes: 2 },
  int32: { code: 4, bytes: 4 },
  int64: { code: 5, bytes: 8 },
  uint16: { code: 8, bytes: 2 },
};

/** The dtypes that are written. */
export type WrittenDtype = "uint16" | "int32";
export type WrittenTokens = Uint16Array | Int32Array;

/** uint16 below 65,500 ids, else int32 (Megatron's rule; the 256,000 ids of Nemotron are int32). */
export function dtypeForVocabulary(vocabSize: number): WrittenDtype {
  return vocabSize < 65_500 ? "uint16" : "int32";
}

export function makeTokens(dtype: WrittenDtype, length: number): WrittenTokens {
  return dtype === "uint16" ? new Uint16Array(length) : new Int32Array(length);
}

/** The dtype with `code` in the index at `path`. Throws DataError for one that cannot hold token ids. */
export function dtypeFromCode(code: number, path: string): TokenDtype {
  for (const name of Object.keys(tokenDtypes) as TokenDtype[]) {
    if (tokenDtypes[name].code === code) return name;
  }
  throw new DataError("data", `expected an integer dtype code (1-5 or 8) in ${path}, got ${code}`, {
    hint: "the file holds no token ids, or is damaged",
    fields: { path, code },
  });
}

/** The files of a data set. `statistics` and `documentBytes` are ours; data made by Megatron comes without them. */
export function filesOf(prefix: string): {
  bin: string;
  idx: string;
  statistics: string;
  documentBytes: string;
} {
  return {
    bin: `${prefix}.bin`,
    idx: `${prefix}.idx`,
    statistics: `${prefix}.stats.json`,
    documentBytes: `${prefix}.bytes`,
  };
}
