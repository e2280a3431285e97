// Private messages with nostr-tools: NIP-17 (kinds 14, 1059) and NIP-04 (kind 4).
import WebSocket from 'ws';
import * as nip04 from 'nostr-tools/nip04';
import * as nip17 from 'nostr-tools/nip17';
import * as nip19 from 'nostr-tools/nip19';
import * as nip59 from 'nostr-tools/nip59';
import { SimplePool, useWebSocketImplementation } from 'nostr-tools/pool';
import { finalizeEvent, generateSecretKey, getEventHash, getPublicKey } from 'nostr-tools/pure';
import { Queue } from './lines.mjs';

useWebSocketImplementation(WebSocket);

const key = generateSecretKey();
const me = getPublicKey(key);
const pool = new SimplePool();
pool.automaticallyAuth = () => async (template) => finalizeEvent(template, key);
const letters = new Queue();

const now = () => Math.floor(Date.now() / 1000);

async function publish(relays, event) {
  await Promise.all(pool.publish(relays, event));
}

function opened(event) {
  if (event.kind === 4) {
    return { kind: 4, from: event.pubkey, text: nip04.decrypt(key, event.pubkey, event.content) };
  }
  const rumor = nip17.unwrapEvent(event, key);
  const sound = getEventHash(rumor) === rumor.id && !('sig' in rumor);
  return { kind: rumor.kind, from: rumor.pubkey, text: rumor.content, tags: rumor.tags, sound };
}

function sealed({ how, relays, to, text, title }) {
  if (how === 'nip17') {
    return nip17.wrapEvent(key, { publicKey: to, relayUrl: relays[0] }, text, title);
  }
  const content = nip04.encrypt(key, to, text);
  return finalizeEvent({ kind: 4, content, tags: [['p', to]], created_at: now() }, key);
}

export default {
  me: () => me,

  // Returns when the relays have sent what they hold. One that answers only after AUTH, which goes
  // on by itself, is asked again until then.
  listen: ({ relays, kind }) =>
    new Promise((resolve) => {
      const ask = () =>
        pool.subscribe(relays, { kinds: [kind], '#p': [me] }, {
          onevent: (event) => letters.push(opened(event)),
          oneose: () => resolve(),
          onclose: (closed) => {
            if (closed.some(({ reason }) => reason.startsWith('restricted:'))) setTimeout(ask, 50);
          },
        });
      ask();
    }),

  async say(letter) {
    await publish(letter.relays, sealed(letter));
  },

  // What a wallet does with a payment: a message from a key that is thrown away, to an nprofile.
  async pay({ target, text }) {
    const { pubkey, relays } = nip19.decode(target).data;
    const to = { publicKey: pubkey, relayUrl: relays[0] };
    await publish(relays, nip17.wrapEvent(generateSecretKey(), to, text));
  },

  // One message, as a sender or a relay in doubt repeats it.
  async repeat({ relays, to, text, how, times }) {
    if (how === 'nip04') {
      const event = sealed({ how, relays, to, text });
      for (let n = 0; n < times; n++) await publish(relays, event);
      return;
    }
    const template = { kind: 14, content: text, tags: [['p', to]], created_at: now() };
    const seal = nip59.createSeal(nip59.createRumor(template, key), key, to);
    for (let n = 0; n < times; n++) await publish(relays, nip59.createWrap(seal, to));
  },

  // Announce at `relays` that private messages are read at `inbox` (kind 10050).
  async settle({ relays, inbox }) {
    const tags = inbox.map((url) => ['relay', url]);
    await publish(relays, finalizeEvent({ kind: 10050, content: '', tags, created_at: now() }, key));
  },

  heard: () => letters.next(),

  // How many such events the relays have stored.
  count: async ({ relays, filter }) => (await pool.querySync(relays, filter)).length,
};
