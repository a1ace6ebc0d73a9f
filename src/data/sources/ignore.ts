/**
 * Which files of a source tree are somebody's writing: globs, .gitignore rules, and the folders and files that are never
 * worth reading. Paths are relative to the tree, with "/" between their parts.
 * Source for the rules: the "pattern format" of gitignore(5).
 */
const skippedFolders = new Set(
  ".git .hg .svn .jj node_modules bower_components __pycache__ .venv .tox .mypy_cache .pytest_cache .ruff_cache .cache .idea .gradle".split(
    " ",
  ),
);

const skippedFiles = new Set(
  "package-lock.json npm-shrinkwrap.json yarn.lock pnpm-lock.yaml bun.lock Cargo.lock poetry.lock uv.lock Gemfile.lock composer.lock go.sum .DS_Store".split(
    " ",
  ),
);

const skippedExtensions = new Set(
  (
    "png jpg jpeg gif webp avif bmp ico tif tiff pdf ps eps svgz mp3 mp4 m4a mov avi mkv webm ogg wav flac woff woff2 ttf otf eot " +
    "zip gz tgz bz2 xz zst 7z rar tar jar war whl deb rpm dmg iso exe dll so dylib a o obj lib class pyc pyo wasm node " +
    "bin idx bytes safetensors gguf pt pth ckpt onnx npy npz pkl h5 parquet arrow feather sqlite db mo map"
  ).split(" "),
);

/** Whether a folder of this name is walked into. */
export function isWalked(folderName: string): boolean {
  return !skippedFolders.has(folderName);
}

/** Whether a file of this name can be text that somebody wrote. JSON lines and compressed text count. */
export function isReadable(fileName: string): boolean {
  if (skippedFiles.has(fileName) || /\.min\.(js|css)$/.test(fileName)) return false;
  const name = fileName.replace(/(\.(jsonl|ndjson|txt|md))\.(gz|zst)$/i, "$1");
  const extension = /\.([^.]+)$/.exec(name)?.[1]?.toLowerCase();
  return extension === undefined || !skippedExtensions.has(extension);
}

/** A glob as an expression on whole paths: `*` and `?` stay within a part, `**` crosses parts, `[...]` is a class. */
export function globExpression(glob: string): RegExp {
  let pattern = "";
  for (let i = 0; i < glob.length; i++) {
    const character = glob[i];
    if (character === "*") {
      if (glob[i + 1] !== "*") pattern += "[^/]*";
      else if (glob[i + 2] === "/") {
        pattern += "(?:.*/)?";
        i += 2;
      } else {
        pattern += ".*";
        i++;
      }
    } else if (character === "?") pattern += "[^/]";
    else if (character === "[" && glob.indexOf("]", i + 2) !== -1) {
      const end = glob.indexOf("]", i + 2);
      const members = glob
        .slice(i + 1, end)
        .replace(/^!/, "^")
        .replaceAll("\\", "\\\\");
      pattern += `[${members}]`;
      i = end;
    } else if (character === "{" && glob.indexOf("}", i) !== -1) {
      const end = glob.indexOf("}", i);
      const choices = glob.slice(i + 1, end).split(",");
      pattern += `(?:${choices.map((choice) => globExpression(choice).source.slice(1, -1)).join("|")})`;
      i = end;
    } else if (character === "\\" && i + 1 < glob.length) pattern += escape(glob[++i]);
    else pattern += escape(character);
  }
  return new RegExp(`^${pattern}$`, "u");
}

function escape(character: string): string {
  return /[\\^$.*+?()[\]{}|/]/.test(character) ? `\\${character}` : character;
}

/** One line of a .gitignore. */
interface IgnoreRule {
  readonly expression: RegExp;
  readonly isNegated: boolean;
  readonly foldersOnly: boolean;
}

/** The rules of one .gitignore, for paths relative to its folder; the last rule that matches decides. */
export class IgnoreRules {
  readonly #rules: readonly IgnoreRule[];

  constructor(text: string) {
    this.#rules = text.split(/\r?\n/).flatMap((line) => {
      const trimmed = line.replace(/(?<!\\)\s+$/, "");
      if (trimmed === "" || trimmed.startsWith("#")) return [];
      const isNegated = trimmed.startsWith("!");
      const body = isNegated ? trimmed.slice(1) : trimmed;
      const foldersOnly = body.endsWith("/");
      const path = foldersOnly ? body.slice(0, -1) : body;
      // A slash anywhere but at the end ties a pattern to this folder.
      const glob = path.includes("/") ? path.replace(/^\//, "") : `**/${path}`;
      return [{ expression: globExpression(glob), isNegated, foldersOnly }];
    });
  }

  /** True: ignored; false: taken back by a "!" rule; undefined: not named. */
  decide(path: string, isFolder: boolean): boolean | undefined {
    for (const rule of this.#rules.toReversed()) {
      if (rule.foldersOnly && !isFolder) continue;
      if (rule.expression.test(path)) return !rule.isNegated;
    }
    return undefined;
  }
}
