// A wallet made of cashu-ts: amounts in sat, coins in memory.
import { setTimeout as sleep } from 'node:timers/promises';
import {
  Wallet,
  decodePaymentRequest,
  getEncodedToken,
  hasValidDleq,
  stripDleq,
  sumProofs,
} from '@cashu/cashu-ts';

let wallet;
let coins = [];

const worth = (proofs) => sumProofs(proofs).toNumber();

export default {
  async open({ mint }) {
    wallet = new Wallet(mint, { unit: 'sat' });
    await wallet.loadMint();
  },

  async fund({ amount }) {
    let quote = await wallet.createMintQuoteBolt11(amount);
    while (quote.state !== 'PAID') {
      await sleep(50);
      quote = await wallet.checkMintQuoteBolt11(quote.quote);
    }
    coins.push(...(await wallet.mintProofsBolt11(amount, quote)));
    return worth(coins);
  },

  // A coin sent as it lies there loses the mint's proof (NUT-12) in this library, one out of a swap
  // keeps it; here it is as asked.
  async token({ amount, version = 4, dleq = false }) {
    const known = new Map(coins.map((coin) => [coin.secret, coin]));
    const { keep, send } = await wallet.send(amount, coins);
    coins = keep;
    const proofs = dleq ? send.map((coin) => known.get(coin.secret) ?? coin) : stripDleq(send);
    const token = { mint: wallet.mint.mintUrl, unit: 'sat', proofs };
    return version === 3 ? legacy(token) : getEncodedToken(token);
  },

  // What came in, after the mint's fee; every coin must prove that the mint signed it.
  async receive({ token }) {
    const fresh = await wallet.receive(token, { requireDleq: true });
    coins.push(...fresh);
    return worth(fresh);
  },

  // The coins of a token as this library reads them, and whether it finds the mint's proof good.
  read({ token }) {
    const { mint, unit, proofs } = wallet.decodeToken(token);
    const dleq = proofs.map((proof) => hasValidDleq(proof, wallet.getKeyset(proof.id)));
    return { mint, unit, amount: worth(proofs), dleq };
  },

  // What a payment request says, as this library reads it and writes it again.
  asked({ request }) {
    const read = decodePaymentRequest(request);
    const { id, amount, unit, mints, description, singleUse, nut10, transport } = read;
    return {
      ...{ id, unit, mints, description, singleUse, nut10, transport },
      amount: amount?.toNumber() ?? null,
      again: [read.toEncodedCreqA(), read.toEncodedCreqB()],
    };
  },

  // The text that pays it (NUT-18): locked as it says, the mint's fee on top; and where it goes.
  async payload({ request, amount, dleq = true }) {
    const asked = decodePaymentRequest(request);
    const lock = asked.toP2PKOptions();
    const sending = wallet.ops.send(amount ?? asked.amount, coins).includeFees(true);
    const { keep, send } = await (lock ? sending.asP2PK(lock) : sending).run();
    coins = keep;
    const proofs = dleq ? send : stripDleq(send);
    const body = { id: asked.id, mint: wallet.mint.mintUrl, unit: asked.unit, proofs: plain(proofs) };
    return { text: JSON.stringify(body), target: asked.getTransport('nostr').target };
  },

  balance: () => worth(coins),
};

// As JSON wants them: amounts are objects here.
const plain = (proofs) => proofs.map((proof) => ({ ...proof, amount: Number(proof.amount) }));

// Version 3, which this library reads and no longer writes (NUT-00).
function legacy({ mint, unit, proofs }) {
  const body = JSON.stringify({ token: [{ mint, proofs: plain(proofs) }], unit });
  return 'cashuA' + Buffer.from(body).toString('base64url');
}
