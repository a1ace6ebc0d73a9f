/** Models and data sets of a Hugging Face hub: pulled into the cache that Python's library shares, and found there. */
export { findCachedModel, requireCachedModel } from "./cache.ts";
export type { CachedModel } from "./cache.ts";
export type { HubFile, HubModel, ModelLicense } from "./client.ts";
export { isModelName } from "./names.ts";
export type { RepositoryKind } from "./names.ts";
export { pullDataset, pullModel } from "./pull.ts";
export type { PulledModel, PullObserver, PullOptions, PullPlan } from "./pull.ts";
export { hubSettings } from "./settings.ts";
export type { HubSettings } from "./settings.ts";
