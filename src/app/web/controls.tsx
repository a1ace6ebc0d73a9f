/** How tokens are drawn. */
import type { Sampling } from "./client.ts";
import type { Store } from "./store.ts";

type NumberField = Exclude<keyof Sampling, "seed" | "stop">;

interface Slider {
  field: NumberField;
  label: string;
  hint: string;
  min: number;
  max: number;
  step: number;
}

function slidersOf(maxContext: number): Slider[] {
  return [
    {
      field: "maxTokens",
      label: "Tokens",
      hint: "at most",
      min: 1,
      max: Math.min(2048, maxContext - 1),
      step: 1,
    },
    { field: "temperature", label: "Temperature", hint: "0 is greedy", min: 0, max: 2, step: 0.05 },
    { field: "topP", label: "Top p", hint: "1 is off", min: 0.01, max: 1, step: 0.01 },
    { field: "topK", label: "Top k", hint: "0 is off", min: 0, max: 200, step: 1 },
    { field: "repetitionPenalty", label: "Repetition penalty", hint: "1 is off", min: 1, max: 2, step: 0.01 },
  ];
}

export function Controls({ store }: { store: Store }) {
  const sampling = store.sampling.value;
  const model = store.info.value?.models.find(({ name }) => store.model.value.startsWith(name));
  return (
    <section class="panel" aria-labelledby="sampling-title">
      <div class="title">
        <h2 id="sampling-title">Sampling</h2>
        <button type="button" class="quiet" onClick={store.resetSampling}>
          Reset
        </button>
      </div>
      {slidersOf(model?.maxContext ?? 4096).map(({ field, label, hint, min, max, step }) => (
        <div class="slider" key={field}>
          <label for={field}>
            {label} <small>{hint}</small>
          </label>
          <output for={field}>{sampling[field]}</output>
          <input
            id={field}
            type="range"
            min={min}
            max={max}
            step={step}
            value={sampling[field]}
            onInput={(event) => store.setSampling({ [field]: event.currentTarget.valueAsNumber })}
          />
        </div>
      ))}
      <div class="pair">
        <label>
          Seed
          <input
            inputMode="numeric"
            pattern="[0-9]*"
            placeholder="random"
            value={sampling.seed}
            onInput={(event) => store.setSampling({ seed: event.currentTarget.value.replaceAll(/\D/g, "") })}
          />
        </label>
        <label>
          Stop at
          <input
            placeholder="nothing"
            value={sampling.stop}
            onInput={(event) => store.setSampling({ stop: event.currentTarget.value })}
          />
        </label>
      </div>
    </section>
  );
}
