/**
 * Losses of preferences and their derivatives with respect to the log-probabilities of whole texts, in float64 on the host: a batch has few
 * texts. Sources: DPO (Rafailov et al., 2023), IPO (Azar et al., 2023; per token, as TRL has it), RPO (Nvidia, "Nemotron-4 340B", 2024, and
 * NeMo-Aligner's rpo_sq, rpo_bwd_kl, rpo_fwd_kl), KTO (Ethayarajh et al., 2024, with NeMo-Aligner's signs).
 */
export type PairKind = "dpo" | "ipo" | "rpo-sq" | "rpo-bwd-kl" | "rpo-fwd-kl";

export interface PreferenceObjective {
  kind: PairKind | "kto";
  /** How far the policy may go from the reference: larger stays closer. */
  beta: number;
  /** Share of pairs that are taken to be the wrong way round (DPO). */
  labelSmoothing: number;
  /** Weight of -log p of the chosen text per token, added to the loss. */
  sftWeight: number;
  /** Scale of the rewards that come with the data (RPO). */
  eta: number;
  desirableWeight: number;
  undesirableWeight: number;
}

/** Log-probability of a text's learnt tokens under the policy and the reference, and how many they are. */
export interface TextScore {
  policy: number;
  reference: number;
  numTokens: number;
}

export interface PairScores {
  chosen: TextScore;
  rejected: TextScore;
  /** Rewards that come with the data. */
  chosenReward?: number | undefined;
  rejectedReward?: number | undefined;
}

export interface PairLoss {
  loss: number;
  /** Derivatives with respect to the policy's log-probabilities. */
  dchosen: number;
  drejected: number;
}

export function sigmoid(x: number): number {
  return x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x));
}

/** log sigmoid(x) without overflow. */
export function logSigmoid(x: number): number {
  return Math.min(0, x) - Math.log1p(Math.exp(-Math.abs(x)));
}

const rewardOf = ({ policy, reference }: TextScore): number => policy - reference;

/** The loss of one pair. */
export function pairLoss(pair: PairScores, objective: PreferenceObjective): PairLoss {
  const { chosen, rejected } = pair;
  const preferred = marginLoss(pair, objective);
  const { sftWeight } = objective;
  return {
    loss: preferred.loss - (sftWeight * chosen.policy) / chosen.numTokens,
    dchosen: preferred.dchosen - sftWeight / chosen.numTokens,
    drejected: rejected.numTokens === 0 ? 0 : preferred.drejected,
  };
}

function marginLoss(
  { chosen, rejected, chosenReward = 0, rejectedReward = 0 }: PairScores,
  { kind, beta, labelSmoothing, eta }: PreferenceObjective,
): PairLoss {
  if (kind === "ipo") {
    const gap =
      rewardOf(chosen) / chosen.numTokens - rewardOf(rejected) / rejected.numTokens - 1 / (2 * beta);
    return {
      loss: gap ** 2,
      dchosen: (2 * gap) / chosen.numTokens,
      drejected: (-2 * gap) / rejected.numTokens,
    };
  }
  const margin = beta * (rewardOf(chosen) - rewardOf(rejected));
  const wanted = eta * (chosenReward - rejectedReward);
  const { loss, derivative } = marginFunctions[kind === "kto" ? "dpo" : kind](margin, wanted, labelSmoothing);
  return { loss, dchosen: beta * derivative, drejected: -beta * derivative };
}

type MarginFunction = (
  margin: number,
  wanted: number,
  smoothing: number,
) => { loss: number; derivative: number };

const marginFunctions: Readonly<Record<Exclude<PairKind, "ipo">, MarginFunction>> = {
  dpo: (margin, _, smoothing) => ({
    loss: -(1 - smoothing) * logSigmoid(margin) - smoothing * logSigmoid(-margin),
    derivative: -(1 - smoothing) * sigmoid(-margin) + smoothing * sigmoid(margin),
  }),
  "rpo-sq": (margin, wanted) => ({ loss: (margin - wanted) ** 2, derivative: 2 * (margin - wanted) }),
  // KL(Bernoulli(sigmoid(wanted)) || Bernoulli(sigmoid(margin)))
  "rpo-bwd-kl": (margin, wanted) => {
    const p = sigmoid(wanted);
    const loss =
      p * (logSigmoid(wanted) - logSigmoid(margin)) + (1 - p) * (logSigmoid(-wanted) - logSigmoid(-margin));
    return { loss, derivative: sigmoid(margin) - p };
  },
  // KL(Bernoulli(sigmoid(margin)) || Bernoulli(sigmoid(wanted)))
  "rpo-fwd-kl": (margin, wanted) => {
    const q = sigmoid(margin);
    const loss =
      q * (logSigmoid(margin) - logSigmoid(wanted)) + (1 - q) * (logSigmoid(-margin) - logSigmoid(-wanted));
    return { loss, derivative: q * (1 - q) * (margin - wanted) };
  },
};

/** KTO of one text: `baseline` is the mean reward of mismatched texts, at least 0, taken as a constant. */
export function unpairedLoss(
  score: TextScore,
  { isDesirable, baseline }: { isDesirable: boolean; baseline: number },
  { beta, desirableWeight, undesirableWeight }: PreferenceObjective,
): { loss: number; derivative: number } {
  const sign = isDesirable ? 1 : -1;
  const weight = isDesirable ? desirableWeight : undesirableWeight;
  const value = sigmoid(sign * beta * (rewardOf(score) - baseline));
  return { loss: weight * (1 - value), derivative: -weight * sign * beta * value * (1 - value) };
}
