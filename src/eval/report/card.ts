/** The figures of the Nemotron-3-8B model card (nvidia/nemotron-3-8b-base-4k), in percent, by task or group. */
export interface CardRow {
  readonly name: string;
  readonly title: string;
  readonly figure: number;
  /** The metric shown; the card does not say which of two it is for HellaSwag, ARC-Easy and PIQA. */
  readonly metrics: readonly string[];
}

export const nemotronCard: readonly CardRow[] = [
  { name: "mmlu_original", title: "MMLU (5-shot)", figure: 54.4, metrics: ["acc,none"] },
  { name: "winogrande", title: "WinoGrande (0-shot)", figure: 70.9, metrics: ["acc,none"] },
  { name: "hellaswag", title: "HellaSwag (0-shot)", figure: 76.4, metrics: ["acc_norm,none", "acc,none"] },
  { name: "arc_easy", title: "ARC-Easy (0-shot)", figure: 72.9, metrics: ["acc,none", "acc_norm,none"] },
  {
    name: "tydiqa_goldp",
    title: "TyDiQA-GoldP (1-shot)",
    figure: 49.2,
    metrics: ["f1,none", "exact_match,none"],
  },
  { name: "lambada_openai", title: "LAMBADA (0-shot)", figure: 70.6, metrics: ["acc,none"] },
  { name: "webqs", title: "WebQS (0-shot)", figure: 22.9, metrics: ["exact_match,none"] },
  { name: "piqa", title: "PIQA (0-shot)", figure: 80.4, metrics: ["acc,none", "acc_norm,none"] },
  { name: "gsm8k_maj8", title: "GSM8K (8-shot, maj@8)", figure: 39.4, metrics: ["exact_match,maj@8"] },
];
