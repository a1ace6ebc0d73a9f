/** Start, stop, and how fast it went. */
import type { ComponentChildren } from "preact";
import type { Store } from "./store.ts";

export function RunBar({
  store,
  label,
  children,
}: {
  store: Store;
  label: string;
  children: ComponentChildren;
}) {
  const speed = store.speed.value;
  return (
    <div class="runbar">
      {store.isRunning.value ? (
        <button type="button" class="primary" onClick={store.stop}>
          Stop <kbd>Esc</kbd>
        </button>
      ) : (
        <button
          type="button"
          class="primary"
          disabled={store.model.value === ""}
          onClick={() => void store.send()}
        >
          {label} <kbd>Ctrl ↵</kbd>
        </button>
      )}
      {children}
      <output class="speed" aria-live="off">
        {speed !== undefined &&
          `${speed.numTokens} tokens · first after ${speed.firstTokenMs.toFixed(0)} ms · ${speed.tokensPerSecond.toFixed(1)} tokens/s`}
      </output>
    </div>
  );
}
