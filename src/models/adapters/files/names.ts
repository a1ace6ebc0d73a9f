/** Files of an adapter's folder. */
export const peftConfigName = "adapter_config.json";
export const weightsName = "adapter_model.safetensors";
/** Of methods that PEFT does not have: `{ formatVersion, config }`, with the tensors under our own names. */
export const ownConfigName = "nautilus_adapter.json";
export const peftPrefix = "base_model.model.";
export const promptTensor = "prompt_embeddings";
export const component = "adapter";
