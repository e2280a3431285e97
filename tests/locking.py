"""Coins under a secret of one's choice, swapped at a real mint by hand."""

from __future__ import annotations

import json
import secrets

from nostrllm.core import coins
from nostrllm.crypto import bdhke
from nostrllm.ports import Mints
from nostrllm.purse.receive import checked
from nostrllm.purse.till import keyset_in_use, keysets_with
from nostrllm.wire.token import BlindedMessage, Dleq, Proof, Token


def lock_to(key: str, *tags: list[str], nonce: str | None = None) -> str:
    """A secret that only `key` can spend, as a wallet may write it (NUT-11)."""
    body = {"nonce": nonce or secrets.token_hex(32), "data": key, "tags": list(tags)}
    return json.dumps(["P2PK", body], separators=(",", ":"))


async def locked(mints: Mints, token: Token, key: str, *tags: list[str]) -> Token:
    """The token's coins, less the mint's fee, as coins locked to `key`; with their DLEQ."""
    mint = mints.at(token.mint)
    keysets = await keysets_with(mint, {proof.id for proof in token.proofs})
    inputs = [checked(proof, token.unit, keysets) for proof in token.proofs]
    amounts = coins.split(token.amount - coins.fee(inputs, keysets))
    keyset = keyset_in_use(keysets, token.unit, amounts)
    made = [(lock_to(key, *tags), secrets.token_bytes(32)) for _ in amounts]
    outputs = [
        BlindedMessage(amount, keyset.id, bdhke.blind(secret, r))
        for amount, (secret, r) in zip(amounts, made, strict=True)
    ]
    proofs = []
    for signature, (secret, r) in zip(await mint.swap(inputs, outputs), made, strict=True):
        assert signature.dleq is not None
        dleq = Dleq(signature.dleq.e, signature.dleq.s, r.hex())
        C = bdhke.unblind(signature.C_, r, keyset.keys[signature.amount])
        proofs.append(Proof(keyset.id, signature.amount, secret, C, dleq))
    return Token(token.mint, token.unit, tuple(proofs))
