/** Methods of customising a frozen decoder: LoRA, DoRA, IA3, bottleneck adapters, virtual tokens; one file each. */
export { Adapter } from "./adapter.ts";
export type { AdapterOptions, AdapterTensor, DropoutBits } from "./adapter.ts";
export { adapterMethods, adapterSchema, parseAdapterConfig } from "./config.ts";
export type { AdapterConfig, AdapterConfigInput, AdapterMethod, LoraConfig } from "./config.ts";
export { adaptedProjections, adapterSpecs, createAdapter } from "./create.ts";
export { DoraAdapter } from "./dora.ts";
export { fillAdapter, isAdapterFolder, loadAdapter, readAdapterFolder, saveAdapter } from "./files/folder.ts";
export type { AdapterFolder } from "./files/description.ts";
export { Ia3Adapter } from "./ia3.ts";
export { LoraAdapter } from "./lora.ts";
export { mergeAdapter } from "./merge.ts";
export { PromptAdapter } from "./prompt.ts";
export { AdapterStack } from "./stack.ts";
export type { AdapterStackOptions } from "./stack.ts";
export { selectTargets, targetModules } from "./targets.ts";
export type { TargetModule, TargetSelection } from "./targets.ts";
