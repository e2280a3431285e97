// Private messages with NDK: NIP-17.
import WebSocket from 'ws';
import NDK, { NDKEvent, NDKPrivateKeySigner, NDKUser, giftUnwrap, giftWrap } from '@nostr-dev-kit/ndk';
import { Queue } from './lines.mjs';

globalThis.WebSocket ??= WebSocket; // Node.js 20 has none of its own

const signer = NDKPrivateKeySigner.generate();
const letters = new Queue();
let ndk;

export default {
  me: () => signer.pubkey,

  // Returns when the relays have sent what they hold.
  async listen({ relays, kind }) {
    ndk = new NDK({ explicitRelayUrls: relays, signer, enableOutboxModel: false });
    await ndk.connect(5_000);
    await new Promise((resolve) => {
      const options = { closeOnEose: false, groupable: false };
      const inbox = ndk.subscribe({ kinds: [kind], '#p': [signer.pubkey] }, options);
      inbox.on('event', (event) => letters.push(opened(event)));
      inbox.on('eose', resolve);
    });
  },

  async say({ to, text }) {
    const message = new NDKEvent(ndk);
    message.kind = 14;
    message.content = text;
    message.tags = [['p', to]];
    message.created_at = Math.floor(Date.now() / 1000);
    const wrap = await giftWrap(message, new NDKUser({ pubkey: to }), signer);
    await wrap.publish();
  },

  heard: () => letters.next(),
};

async function opened(wrap) {
  const rumor = await giftUnwrap(wrap, undefined, signer);
  return { kind: rumor.kind, from: rumor.pubkey, text: rumor.content };
}
