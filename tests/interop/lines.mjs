// Commands in, answers out: one JSON object a line, in turn, until standard input ends.
import { createInterface } from 'node:readline';

console.log = console.info = console.debug = console.error; // nothing else between our lines

export function serve(commands) {
  let turn = Promise.resolve();
  const lines = createInterface({ input: process.stdin });
  lines.on('line', (line) => {
    turn = turn.then(() => answer(commands, JSON.parse(line)));
  });
  lines.on('close', () => process.exit(0));
}

async function answer(commands, { do: name, ...fields }) {
  let said;
  try {
    said = { ok: (await commands[name](fields)) ?? null };
  } catch (error) {
    console.error(error);
    said = { error: `${error?.code ?? ''} ${error?.message ?? error}`.trim() };
  }
  process.stdout.write(JSON.stringify(said) + '\n');
}

// What arrived, in order, for whoever asks for the next.
export class Queue {
  #items = [];
  #waiting = [];

  push(item) {
    const taker = this.#waiting.shift();
    if (taker) taker(item);
    else this.#items.push(item);
  }

  next() {
    if (this.#items.length) return this.#items.shift();
    return new Promise((resolve) => this.#waiting.push(resolve));
  }
}
