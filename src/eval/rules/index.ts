/** The kinds of request: what each asks the model, and how its answers are scored. */
import { invariant } from "../../base/index.ts";
import type { Answer, MetricInfo, RequestRule, SampleScore, TaskDefinition, TaskRequest } from "../task.ts";
import { choiceMetrics, choiceRequests, scoreChoice } from "./choice.ts";
import { continuationMetrics, continuationRequest, scoreContinuation } from "./continuation.ts";
import { generationMetrics, generationRequests, scoreGeneration } from "./generation.ts";
import type { Question } from "./question.ts";
import { rollingMetrics, scoreRolling } from "./rolling.ts";

export function metricsOf<Row>(rule: RequestRule<Row>): readonly MetricInfo[] {
  switch (rule.kind) {
    case "choice":
      return choiceMetrics(rule);
    case "continuation":
      return continuationMetrics;
    case "rolling":
      return rollingMetrics;
    case "generate":
      return generationMetrics(rule);
  }
}

export function requestsOf<Row>(definition: TaskDefinition<Row>, question: Question<Row>): TaskRequest[] {
  const { request } = definition;
  switch (request.kind) {
    case "choice":
      return choiceRequests(definition, request, question);
    case "continuation":
      return [continuationRequest(definition, request, question)];
    case "rolling":
      return [{ kind: "rolling", text: request.text(question.row) }];
    case "generate":
      return generationRequests(definition, request, question);
  }
}

export function scoreSample<Row>(
  rule: RequestRule<Row>,
  { row, answers }: { row: Row; answers: readonly Answer[] },
): SampleScore {
  if (rule.kind === "generate") {
    const texts = answers.map((answer) => {
      invariant(answer.kind === "text", "generation answers with text");
      return answer.text;
    });
    return scoreGeneration(rule, row, texts);
  }
  const likelihoods = answers.map((answer) => {
    invariant(answer.kind === "likelihood", "scoring answers with likelihoods");
    return answer;
  });
  switch (rule.kind) {
    case "choice":
      return scoreChoice(rule, row, likelihoods);
    case "continuation":
      return scoreContinuation(likelihoods[0]);
    case "rolling":
      return scoreRolling(rule, row, likelihoods[0].logprob);
  }
}
