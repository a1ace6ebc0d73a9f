/**
 * The direction of imports between the folders of src/ (docs/layers.md). A folder may import itself, the folders
 * listed for it, and, through the index only, nothing deeper of the others. `npm run check:layers` runs it.
 */
const mayImport = {
  base: [],
  device: ["base"],
  tensor: ["device", "base"],
  checkpoint: ["base"],
  text: ["base"],
  models: ["tensor", "checkpoint", "base"],
  data: ["text", "base"],
  infer: ["models", "tensor", "checkpoint", "text", "base"],
  train: ["models", "tensor", "checkpoint", "data", "text", "base"],
  eval: ["data", "text", "base"],
  guard: ["text", "base"],
};

const layerRules = Object.entries(mayImport).map(([layer, allowed]) => ({
  name: `layer-${layer}`,
  comment: `src/${layer} may import: ${allowed.join(", ") || "nothing"} (docs/layers.md)`,
  severity: "error",
  from: { path: `^src/${layer}/` },
  to: { path: "^src/", pathNot: `^src/(${[layer, ...allowed].join("|")})/` },
}));

/** The device contract is all that lies above may know: backends are loaded by src/device/index.ts alone. */
const backendRule = {
  name: "backends-stay-apart",
  comment: "reference, cpu and cuda never import each other; only device/index.ts names them",
  severity: "error",
  from: { path: "^src/device/(reference|cpu|cuda)/" },
  to: { path: "^src/device/(reference|cpu|cuda)/", pathNot: "^src/device/$1/" },
};

export default {
  forbidden: [
    ...layerRules,
    backendRule,
    {
      name: "folders-through-their-index",
      comment: "another folder of src/ is imported through its index.ts",
      severity: "error",
      from: { path: "^src/([^/]+)/" },
      to: { path: "^src/[^/]+/", pathNot: "^src/($1/|[^/]+/index\\.ts$)" },
    },
    {
      name: "koffi-only-in-device",
      comment: "native code is reached through src/device only",
      severity: "error",
      from: { path: "^src/", pathNot: "^src/device/" },
      to: { path: "^node_modules/koffi" },
    },
    { name: "no-cycles", severity: "error", from: {}, to: { circular: true } },
  ],
  options: {
    tsPreCompilationDeps: true,
    doNotFollow: { path: "node_modules" },
    tsConfig: { fileName: "tsconfig.json" },
  },
};
