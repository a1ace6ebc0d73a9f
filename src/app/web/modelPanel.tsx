/** What the model is: figures, card, license. */
import type { ModelDetails } from "../api/serverInfo.ts";
import type { Store } from "./store.ts";

const number = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 });

function figuresOf({
  numParameters,
  maxContext,
  vocabSize,
  width,
  dtype,
  quantise,
  kvCache,
  device,
}: ModelDetails): [string, string][] {
  return [
    ["Parameters", number.format(numParameters)],
    ["Context", `${maxContext} tokens`],
    ["Vocabulary", `${vocabSize} tokens`],
    ["Width", String(width)],
    ["Weights", quantise === null ? dtype : `${dtype}, blocks in ${quantise}`],
    ["Cache", kvCache],
    ["Device", device],
  ];
}

export function ModelPanel({ store }: { store: Store }) {
  const { info, model } = store;
  const details = info.value?.models.find(
    ({ name }) => model.value === name || model.value.startsWith(`${name}:`),
  );
  if (details === undefined) return null;
  return (
    <section class="panel" aria-labelledby="model-title">
      <div class="title">
        <h2 id="model-title">{details.name}</h2>
      </div>
      <dl class="details">
        {figuresOf(details).map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      <details>
        <summary>Model card</summary>
        <pre>{details.card ?? "The model folder has no README.md."}</pre>
      </details>
      <details>
        <summary>License</summary>
        <pre>
          {details.license ??
            "The model folder has no license file and its card names none: ask whoever made the model."}
        </pre>
      </details>
      <p class="version">Nautilus {info.value?.version}</p>
    </section>
  );
}
