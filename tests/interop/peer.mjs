// A person with a Nostr library and a wallet: `node peer.mjs nostr-tools` or `node peer.mjs ndk`.
import { serve } from './lines.mjs';
import wallet from './wallet.mjs';

const { default: messages } = await import(`./${process.argv[2]}.mjs`);
serve({ ...wallet, ...messages });
