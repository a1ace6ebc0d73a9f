/** Throughput and use of the cache over the last minutes. */
import "uplot/dist/uPlot.min.css";
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import type { Store } from "./store.ts";

const height = 120;
const shownSeconds = 60;
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium", hourCycle: "h23" });
/** uPlot's word for it is a constant of its types alone. */
const rightSide: object = { side: 1 };

function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function chartIn(box: HTMLElement): uPlot {
  const axis = { stroke: () => colour("--soft"), font: "11px system-ui", ticks: { show: false } };
  const grid = { stroke: () => colour("--line"), width: 1 };
  return new uPlot(
    {
      width: Math.max(box.clientWidth, 10),
      height,
      legend: { show: false },
      cursor: { show: false },
      padding: [8, 0, 0, 0],
      scales: {
        x: { time: true, range: (_, __, max) => [(max ?? 0) - shownSeconds, max ?? 0] },
        speed: { range: (_, __, max) => [0, Math.max(1, max * 1.1)] },
        cache: { range: [0, 100] },
      },
      axes: [
        {
          ...axis,
          grid: { show: false },
          space: 90,
          size: 28,
          // One line: uPlot's own labels have the date on a second, which this height would cut.
          values: (_, all) => all.map((seconds) => clock.format(seconds * 1000)),
        },
        { ...axis, scale: "speed", grid, size: 42 },
        {
          ...axis,
          scale: "cache",
          ...rightSide,
          grid: { show: false },
          size: 42,
          values: (_, all) => all.map((v) => `${v} %`),
        },
      ],
      series: [
        {},
        { scale: "speed", stroke: () => colour("--accent"), width: 2, points: { show: false } },
        { scale: "cache", stroke: () => colour("--warm"), width: 2, dash: [5, 3], points: { show: false } },
      ],
    },
    [[], [], []],
    box,
  );
}

export function LoadChart({ store }: { store: Store }) {
  const box = useRef<HTMLDivElement>(null);
  const chart = useRef<uPlot | undefined>(undefined);
  const theme = store.theme.value;
  const { samples, model } = store;
  useEffect(() => {
    if (box.current === null) return;
    const element = box.current;
    chart.current = chartIn(element);
    const observer = new ResizeObserver(() => chart.current?.setSize({ width: element.clientWidth, height }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      chart.current?.destroy();
    };
  }, [theme]);
  const points = samples.value.map(({ seconds, statistics }) => {
    const own = statistics.models.find((one) => model.value.startsWith(one.model)) ?? statistics.models[0];
    return {
      seconds,
      speed: own.tokensPerSecond,
      cache: (100 * own.numUsedBlocks) / Math.max(1, own.numBlocks),
    };
  });
  useEffect(() => {
    chart.current?.setData([
      points.map(({ seconds }) => seconds),
      points.map(({ speed }) => speed),
      points.map(({ cache }) => cache),
    ]);
  }, [samples.value, theme]);
  const last = points.at(-1);
  return (
    <section class="panel" aria-labelledby="load-title">
      <div class="title">
        <h2 id="load-title">Load</h2>
      </div>
      <dl class="figures">
        <div>
          <dt class="accent">Tokens/s</dt>
          <dd data-testid="tokens-per-second">{last === undefined ? "–" : last.speed.toFixed(1)}</dd>
        </div>
        <div>
          <dt class="warm">Cache in use</dt>
          <dd>{last === undefined ? "–" : `${last.cache.toFixed(1)} %`}</dd>
        </div>
      </dl>
      <div class="chart" ref={box} aria-hidden="true" />
    </section>
  );
}
