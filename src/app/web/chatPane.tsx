/** A conversation. */
import { useEffect, useRef } from "preact/hooks";
import { RunBar } from "./runBar.tsx";
import type { Store } from "./store.ts";
import { TokenText } from "./tokenText.tsx";

export function ChatPane({ store }: { store: Store }) {
  const turns = store.turns.value;
  const end = useRef<HTMLDivElement>(null);
  useEffect(() => end.current?.scrollIntoView({ block: "nearest" }), [turns]);
  return (
    <div class="pane">
      <div class="field">
        <label for="system">System message</label>
        <textarea
          id="system"
          rows={1}
          placeholder="Optional"
          value={store.system.value}
          onInput={(event) => (store.system.value = event.currentTarget.value)}
        />
      </div>
      <div class="turns" role="log" aria-label="Conversation">
        {turns.length === 0 && (
          <p class="hint">Say something: the answer is shaded by how sure the model was.</p>
        )}
        {turns.map(({ role, content, pieces }, i) => (
          <article key={i} class={`turn ${role}`}>
            <h2>{role === "user" ? "You" : "Model"}</h2>
            {pieces === undefined ? (
              <p>{content}</p>
            ) : (
              <TokenText
                before=""
                pieces={pieces}
                isRunning={store.isRunning.value && i === turns.length - 1}
              />
            )}
          </article>
        ))}
        <div ref={end} />
      </div>
      <div class="field">
        <label for="draft">Message</label>
        <textarea
          id="draft"
          rows={3}
          value={store.draft.value}
          onInput={(event) => (store.draft.value = event.currentTarget.value)}
        />
      </div>
      <RunBar store={store} label="Send">
        {turns.length > 0 && (
          <button type="button" onClick={store.clearChat}>
            New conversation
          </button>
        )}
      </RunBar>
    </div>
  );
}
