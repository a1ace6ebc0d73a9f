/** A prompt and its continuation. */
import { RunBar } from "./runBar.tsx";
import type { Store } from "./store.ts";
import { Legend, TokenText } from "./tokenText.tsx";

export function CompletePane({ store }: { store: Store }) {
  const pieces = store.pieces.value;
  const recent = store.recent.value;
  return (
    <div class="pane">
      <div class="field grow">
        <label for="prompt">Prompt</label>
        <textarea
          id="prompt"
          rows={6}
          spellcheck={false}
          value={store.prompt.value}
          onInput={(event) => (store.prompt.value = event.currentTarget.value)}
        />
      </div>
      <RunBar store={store} label="Continue">
        {recent.length > 0 && (
          <select
            aria-label="Recent prompts"
            value=""
            onChange={(event) => {
              const chosen = recent[Number(event.currentTarget.value)];
              if (chosen !== undefined) store.prompt.value = chosen;
              event.currentTarget.value = "";
            }}
          >
            <option value="">Recent prompts…</option>
            {recent.map((prompt, i) => (
              <option key={prompt} value={i}>
                {prompt.slice(0, 70)}
              </option>
            ))}
          </select>
        )}
        {pieces.length > 0 && !store.isRunning.value && (
          <button type="button" onClick={store.keep}>
            Go on from here
          </button>
        )}
      </RunBar>
      <div class="output" aria-busy={store.isRunning.value}>
        {pieces.length === 0 && !store.isRunning.value ? (
          <p class="hint">
            The continuation appears here. Tokens are shaded by how sure the model was; point at one, or use
            the arrow keys, for what else it had in mind.
          </p>
        ) : (
          <>
            <TokenText before={store.answered.value} pieces={pieces} isRunning={store.isRunning.value} />
            <Legend />
          </>
        )}
      </div>
    </div>
  );
}
