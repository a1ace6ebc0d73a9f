/** The page: head, work place, side panels. */
import { useEffect } from "preact/hooks";
import { ChatPane } from "./chatPane.tsx";
import { CompletePane } from "./completePane.tsx";
import { Controls } from "./controls.tsx";
import { LoadChart } from "./loadChart.tsx";
import { ModelPanel } from "./modelPanel.tsx";
import type { Mode, Store, Theme } from "./store.ts";

const sampleMs = 1000;
const modes: [Mode, string][] = [
  ["complete", "Complete"],
  ["chat", "Chat"],
];
const themes: [Theme, string][] = [
  ["auto", "System"],
  ["light", "Light"],
  ["dark", "Dark"],
];

export function App({ store }: { store: Store }) {
  useEffect(() => {
    void store.load();
    const timer = setInterval(() => void store.sample(), sampleMs);
    const onKey = (event: KeyboardEvent): void => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        void store.send();
      } else if (event.key === "Escape") store.stop();
    };
    addEventListener("keydown", onKey);
    return () => {
      clearInterval(timer);
      removeEventListener("keydown", onKey);
    };
  }, []);
  return (
    <>
      <Head store={store} />
      <main>
        <section class="work" aria-label="Workplace">
          <Failure store={store} />
          {store.mode.value === "complete" ? <CompletePane store={store} /> : <ChatPane store={store} />}
        </section>
        <aside aria-label="Settings and model">
          <Controls store={store} />
          <LoadChart store={store} />
          <ModelPanel store={store} />
        </aside>
      </main>
    </>
  );
}

function Head({ store }: { store: Store }) {
  const models = store.info.value?.models ?? [];
  const names = models.flatMap(({ name, adapters }) => [
    name,
    ...adapters.map((adapter) => `${name}:${adapter}`),
  ]);
  return (
    <header>
      <div class="brand">
        <svg viewBox="0 0 32 32" aria-hidden="true">
          <path d="M16.5 16.5c.9-1.6 3.6-.9 3.5 1.4-.1 2.7-3.3 3.9-5.7 2.6-3.500-1.900-3.500-7.100.2-9.400 4.900-3 11.300.3 12 6.200.8 6.900-5.300 12-12 11.100C7.200 27.400 2.700 21.200 4 14.400 5 9.100 9.300 5 15 4" />
        </svg>
        <h1>Nautilus</h1>
      </div>
      <nav class="segments" aria-label="Mode">
        {modes.map(([mode, label]) => (
          <button
            type="button"
            key={mode}
            aria-pressed={store.mode.value === mode}
            onClick={() => (store.mode.value = mode)}
          >
            {label}
          </button>
        ))}
      </nav>
      <label class="pick">
        <span>Model</span>
        <select
          value={store.model.value}
          onChange={(event) => (store.model.value = event.currentTarget.value)}
        >
          {names.map((name) => (
            <option key={name} value={name}>
              {name}
            </option>
          ))}
        </select>
      </label>
      <label class="pick theme">
        <span>Theme</span>
        <select
          value={store.theme.value}
          onChange={(event) => (store.theme.value = event.currentTarget.value as Theme)}
        >
          {themes.map(([theme, label]) => (
            <option key={theme} value={theme}>
              {label}
            </option>
          ))}
        </select>
      </label>
    </header>
  );
}

function Failure({ store }: { store: Store }) {
  const failure = store.failure.value;
  if (failure === undefined) return null;
  return (
    <div class="failure" role="alert">
      <p>{failure.message}</p>
      {failure.needsKey && (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            const input = event.currentTarget.elements.namedItem("key");
            if (input instanceof HTMLInputElement) void store.setKey(input.value);
          }}
        >
          <label>
            API key <input name="key" type="password" autocomplete="off" required />
          </label>
          <button type="submit" class="primary">
            Use it
          </button>
        </form>
      )}
    </div>
  );
}
