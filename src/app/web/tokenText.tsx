/** Text shaded by the probability of its tokens, with the alternatives of the one that is pointed at or reached by arrow keys. */
import { useRef, useState } from "preact/hooks";
import type { Piece } from "./client.ts";

/** Shades from sure to surprised; the classes are coloured in styles.css. */
const limits = [0.9, 0.6, 0.3, 0.1, 0.02];

function shadeOf({ tokens }: Piece): number {
  const probability = tokens.reduce((product, token) => product * token.probability, 1);
  const shade = limits.findIndex((limit) => probability >= limit);
  return shade < 0 ? limits.length : shade;
}

export interface TokenTextProps {
  before: string;
  pieces: readonly Piece[];
  isRunning: boolean;
}

export function TokenText({ before, pieces, isRunning }: TokenTextProps) {
  const [chosen, setChosen] = useState<number | undefined>(undefined);
  const box = useRef<HTMLDivElement>(null);
  const move = (event: KeyboardEvent): void => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step === undefined || pieces.length === 0) return;
    event.preventDefault();
    setChosen(Math.max(0, Math.min(pieces.length - 1, (chosen ?? (step > 0 ? -1 : pieces.length)) + step)));
  };
  const piece = chosen === undefined ? undefined : pieces[chosen];
  return (
    <div class="tokens" ref={box} onMouseLeave={() => setChosen(undefined)}>
      <div
        class="text"
        role="group"
        tabIndex={0}
        aria-label="Generated text; arrow keys move between tokens"
        onKeyDown={move}
        onBlur={() => setChosen(undefined)}
      >
        <span class="before">{before}</span>
        {pieces.map((piece, i) => (
          <span
            key={i}
            class={`token shade${shadeOf(piece)}${i === chosen ? " chosen" : ""}`}
            onMouseEnter={() => setChosen(i)}
          >
            {piece.text}
          </span>
        ))}
        {isRunning && <span class="caret" aria-hidden="true" />}
      </div>
      {piece !== undefined && chosen !== undefined && (
        <Alternatives piece={piece} box={box.current} place={chosen} />
      )}
    </div>
  );
}

/** What the shades mean. */
export function Legend() {
  return (
    <p class="legend">
      sure
      {[0, ...limits].map((_, shade) => (
        <i key={shade} class={`shade${shade}`} />
      ))}
      surprised
    </p>
  );
}

const cardWidth = 260;

/** A card under the chosen token, within the box. */
function Alternatives({ piece, box, place }: { piece: Piece; box: HTMLDivElement | null; place: number }) {
  const token = box?.querySelectorAll<HTMLElement>(".token")[place];
  const left = Math.max(0, Math.min(token?.offsetLeft ?? 0, (box?.clientWidth ?? 0) - cardWidth));
  const top = (token?.offsetTop ?? 0) + (token?.offsetHeight ?? 0) + 6;
  return (
    <div class="card" role="status" aria-label="Alternatives" style={{ left: `${left}px`, top: `${top}px` }}>
      {piece.tokens.map(({ token, probability, alternatives }, i) => (
        <table key={i}>
          <caption>
            <code>{shown(token)}</code> {percent(probability)}
          </caption>
          <tbody>
            {alternatives.map((other) => (
              <tr key={other.token} class={other.token === token ? "own" : ""}>
                <td>
                  <code>{shown(other.token)}</code>
                </td>
                <td>
                  <meter
                    min={0}
                    max={1}
                    value={other.probability}
                    aria-label={`probability of ${other.token}`}
                  />
                </td>
                <td>{percent(other.probability)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      ))}
    </div>
  );
}

function percent(probability: number): string {
  const value = probability * 100;
  return value > 0 && value < 0.1 ? "<0.1 %" : `${value.toFixed(1)} %`;
}

/** White space made visible. */
function shown(token: string): string {
  return token.replaceAll(" ", "·").replaceAll("\n", "↵").replaceAll("\t", "⇥");
}
