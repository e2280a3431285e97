"""Nutshell's own wallet, in a process of its own: `python nutshell_wallet.py MINT FOLDER TOKEN`.

It takes TOKEN in, then prints one JSON line: what it has, and a V3 and a V4 token of it. Run it in
FOLDER, for it reads and writes files where it stands.
"""

from __future__ import annotations

import asyncio
import json
import sys

from cashu.wallet.helpers import deserialize_token_from_string, receive
from cashu.wallet.wallet import Wallet


async def main(mint: str, folder: str, text: str) -> None:
    wallet = await Wallet.with_db(mint, folder, name="wallet", unit="sat")
    await wallet.load_mint()
    await receive(wallet, deserialize_token_from_string(text))
    await wallet.load_proofs(reload=True)
    tokens = []
    for legacy in (True, False):
        _, send = await wallet.swap_to_send(wallet.proofs, 10, set_reserved=True)
        tokens.append(await wallet.serialize_proofs(send, include_dleq=not legacy, legacy=legacy))
    print(json.dumps({"has": wallet.available_balance.amount, "tokens": tokens}))


asyncio.run(main(*sys.argv[1:]))
