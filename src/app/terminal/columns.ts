/** Text in the terminal's width: long sentences on several lines, at words. */

const narrowest = 40;

/** Columns of standard output; 80 where it is no terminal. */
export function terminalColumns(): number {
  return Math.max(narrowest, process.stdout.columns ?? 80);
}

/** `text` in lines of at most `columns`, the first after `label`, the others below it. A word longer than a line stays whole. */
export function labelled(label: string, text: string, columns = terminalColumns()): string {
  const room = columns - label.length;
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > room) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  lines.push(line);
  return lines.map((part, i) => `${i === 0 ? label : " ".repeat(label.length)}${part}\n`).join("");
}
