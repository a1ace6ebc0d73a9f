/** Text: tokenizers, their training, and what a language model is asked. Knows nothing of models, devices or data files. */
export { BpeTokenizer } from "./bpe/bpeTokenizer.ts";
export { type BpeDefinition, standardSpecialTokens } from "./bpe/definition.ts";
export {
  type ChatMessage,
  ChatTemplate,
  type ChatTemplateOptions,
  ChatTemplates,
  loadChatTemplates,
} from "./chat/chatTemplate.ts";
export * from "./chat/conversation.ts";
export * from "./chat/nemotronPrompts.ts";
export { type EncodedPair, encodePair, pairEncoder, prefixTokenOf } from "./encodePair.ts";
export * from "./languageModel.ts";
export { loadTokenizer, saveTokenizer } from "./loadTokenizer.ts";
export { OfficialTokenizer } from "./official/officialTokenizer.ts";
export { SentencePieceTokenizer } from "./sentencepiece/sentencePieceTokenizer.ts";
export { createStreamDecoder } from "./streamDecoder.ts";
export * from "./tokenizer.ts";
export {
  type TokenizerTrainingOptions,
  type TrainingProgress,
  trainTokenizer,
} from "./training/trainTokenizer.ts";
