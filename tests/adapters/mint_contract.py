"""What any mint does that ports.Mint is to stand for: the real one, and the simulation's.

Whoever passes these can be lied about by nobody: a simulation that is kinder than nutshell, or
refuses with other codes, fails here.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from nostrllm.core.coins import split
from nostrllm.crypto import bdhke
from nostrllm.errors import MintRefused, OutcomeUnknown
from nostrllm.ports import Keyset, Melt, Mint
from nostrllm.wire.token import BlindedMessage, BlindSignature, Dleq, Proof
from tests.invoices import invoice
from tests.locking import lock_to

#: Nutshell's code 0, which says nothing: the port's OutcomeUnknown.
UNCLEAR = 0


@dataclass
class Bench:
    """A mint with 100 ppk whose invoices pay themselves, and a way to make it change its keys."""

    mint: Mint
    rotate: Callable[[], None] = lambda: None

    async def keyset(self) -> Keyset:
        """The one in use for sat."""
        keysets = (await self.mint.keysets(refresh=True)).values()
        return next(keyset for keyset in keysets if keyset.active and keyset.unit == "sat")

    async def outputs(self, *amounts: int) -> Outputs:
        """Fresh ones."""
        return Outputs(await self.keyset(), [(n, secrets.token_hex(32)) for n in amounts])

    async def coins(self, amount: int) -> list[Proof]:
        """Bought by Lightning."""
        quote = await self.mint.quote_mint(amount, "sat")
        while quote.state != "PAID":
            quote = await self.mint.mint_quote(quote.quote)
        outputs = await self.outputs(*split(amount))
        return outputs.coins(await self.mint.mint(quote.quote, outputs.messages))

    async def locked(self, key: str, *tags: list[str]) -> list[Proof]:
        """A coin of 4, locked."""
        outputs = Outputs(await self.keyset(), [(4, lock_to(key, *tags))])
        return outputs.coins(await self.mint.swap(await self.coins(5), outputs.messages))

    async def refusal(self, inputs: Sequence[Proof], outputs: Sequence[BlindedMessage]) -> int:
        """The code with which a swap is refused."""
        return await refused(self.mint.swap(inputs, outputs))


class Outputs:
    """Blinded messages, and the coins they become."""

    def __init__(self, keyset: Keyset, wanted: Sequence[tuple[int, str]]) -> None:
        self.keyset = keyset
        self.secrets = [(secret, secrets.token_bytes(32)) for _, secret in wanted]
        self.messages = [
            BlindedMessage(amount, keyset.id, bdhke.blind(secret, r))
            for (amount, _), (secret, r) in zip(wanted, self.secrets, strict=True)
        ]

    def coins(self, signatures: Sequence[BlindSignature]) -> list[Proof]:
        """Each with its DLEQ, which is checked."""
        made = []
        for message, signed, (secret, r) in zip(
            self.messages, signatures, self.secrets, strict=True
        ):
            key = self.keyset.keys[signed.amount]
            assert signed.dleq is not None
            assert bdhke.verify_dleq(message.B_, signed.C_, signed.dleq, key)
            dleq = Dleq(signed.dleq.e, signed.dleq.s, r.hex())
            C = bdhke.unblind(signed.C_, r, key)
            made.append(Proof(message.id, signed.amount, secret, C, dleq))
        return made


async def refused(call: Awaitable[Any]) -> int:
    """The code of a refusal."""
    try:
        await call
    except MintRefused as error:
        return error.mint_code
    except OutcomeUnknown as error:
        return UNCLEAR if error.answered else -1
    pytest.fail("not refused")


def _ys(proofs: Sequence[Proof]) -> list[str]:
    return [bdhke.y_of(proof.secret) for proof in proofs]


def _key() -> tuple[bytes, str]:
    secret = secrets.token_bytes(32)
    return secret, bdhke.public_key_of(secret)


def _signed(proofs: Sequence[Proof], *keys: bytes) -> list[Proof]:
    def witness(secret: str) -> str:
        made = [bdhke.sign_secret(secret, key, bytes(32)) for key in keys]
        return json.dumps({"signatures": made})

    return [replace(proof, witness=witness(proof.secret)) for proof in proofs]


class MintContract:
    """Inherit it, and give fixtures `bench` and, of a mint whose keys may change, `turning`."""

    async def test_info_lists_what_we_need(self, bench: Bench) -> None:
        assert {"7", "9", "11", "12"} <= set((await bench.mint.info())["nuts"])

    async def test_a_swap_spends_signs_and_can_be_restored(self, bench: Bench) -> None:
        mint, coins = bench.mint, await bench.coins(20)
        outputs, other = await bench.outputs(1, 2, 16), await bench.outputs(8)
        assert await mint.states(_ys(coins)) == ["UNSPENT"] * len(coins)
        made = outputs.coins(await mint.swap(coins, outputs.messages))
        assert await mint.states(_ys([*coins, *made])) == ["SPENT"] * 2 + ["UNSPENT"] * 3
        asked = [*other.messages, *reversed(outputs.messages)]
        restored = await mint.restore(asked)
        assert {message.B_ for message, _ in restored} == {m.B_ for m in outputs.messages}
        found = {message.B_: signature for message, signature in restored}
        assert outputs.coins([found[message.B_] for message in outputs.messages]) == made
        keys = outputs.keyset.keys
        assert all(bdhke.verify_proof_dleq(coin, keys[coin.amount]) for coin in made)

    async def test_a_coin_that_never_was_is_unspent(self, bench: Bench) -> None:
        assert await bench.mint.states([bdhke.y_of("nobody's")]) == ["UNSPENT"]

    async def test_restore_tells_the_signed_amount(self, bench: Bench) -> None:
        outputs = await bench.outputs(1, 2)
        await bench.mint.swap(await bench.coins(4), outputs.messages)
        [(_, signature)] = await bench.mint.restore([replace(outputs.messages[0], amount=4)])
        assert signature.amount == 1

    async def test_a_refused_swap_changes_nothing(self, bench: Bench) -> None:
        coins, outputs = await bench.coins(4), await bench.outputs(1, 2)
        over = await bench.outputs(4)
        assert await bench.refusal(coins, over.messages) == 11000
        assert await bench.mint.restore(over.messages) == []
        assert await bench.mint.states(_ys(coins)) == ["UNSPENT"]
        outputs.coins(await bench.mint.swap(coins, outputs.messages))

    async def test_what_does_not_sum_up(self, bench: Bench) -> None:
        coins = await bench.coins(4)
        for amounts in ((4,), (1,), (1, 2, 1)):
            assert await bench.refusal(coins, (await bench.outputs(*amounts)).messages) == 11000

    async def test_coins_and_outputs_twice(self, bench: Bench) -> None:
        coins, [output] = await bench.coins(4), (await bench.outputs(1)).messages
        outputs = (await bench.outputs(1, 2, 4)).messages
        assert await bench.refusal(coins * 2, outputs) == 11007
        assert await bench.refusal(await bench.coins(3), [output, output]) == 11008

    async def test_spent_coins(self, bench: Bench) -> None:
        coins, outputs = await bench.coins(4), await bench.outputs(1, 2)
        await bench.mint.swap(coins, outputs.messages)
        assert await bench.refusal(coins, outputs.messages) == 11001
        assert await bench.refusal(coins, (await bench.outputs(1, 2)).messages) == 11001
        mixed = [*coins, *await bench.coins(8)]
        assert await bench.refusal(mixed, (await bench.outputs(1, 2, 8)).messages) == 11001

    async def test_outputs_signed_before(self, bench: Bench) -> None:
        outputs = await bench.outputs(1, 2)
        await bench.mint.swap(await bench.coins(4), outputs.messages)
        assert await bench.refusal(await bench.coins(4), outputs.messages) == 11003

    async def test_forged_coins(self, bench: Bench) -> None:
        [coin] = await bench.coins(4)
        outputs = (await bench.outputs(1, 2)).messages
        assert await bench.refusal([replace(coin, secret="00" * 32)], outputs) == 10001
        unknown = replace(coin, id="00" + "ab" * 7)
        assert await bench.refusal([unknown], outputs) == UNCLEAR

    async def test_outputs_that_are_none(self, bench: Bench) -> None:
        coins, [one, two] = await bench.coins(4), (await bench.outputs(1, 2)).messages
        assert await bench.refusal(coins, []) == UNCLEAR
        assert await bench.refusal(coins, [replace(one, amount=0), two]) == 10000
        assert await bench.refusal(coins, [replace(one, amount=3)]) == UNCLEAR
        assert await bench.refusal(coins, [replace(one, B_="02" + "ff" * 32), two]) == UNCLEAR
        assert await bench.refusal(coins, [one, replace(two, id="00" + "ab" * 7)]) == 11000
        assert await bench.mint.states(_ys(coins)) == ["UNSPENT"]

    async def test_quotes(self, bench: Bench) -> None:
        mint = bench.mint
        quote = await mint.quote_mint(4, "sat")
        while quote.state != "PAID":
            quote = await mint.mint_quote(quote.quote)
        assert (quote.amount, quote.unit) == (4, "sat")
        over = await bench.outputs(8)
        assert await refused(mint.mint(quote.quote, over.messages)) == 11000
        outputs = await bench.outputs(4)
        outputs.coins(await mint.mint(quote.quote, outputs.messages))
        assert (await mint.mint_quote(quote.quote)).state == "ISSUED"
        again = (await bench.outputs(4)).messages
        assert await refused(mint.mint(quote.quote, again)) == 20002
        assert await refused(mint.mint_quote("none")) == UNCLEAR
        assert await refused(mint.quote_mint(4, "eur")) == 10000

    async def test_invoices_are_paid_and_change_comes_back(self, bench: Bench) -> None:
        mint, coins = bench.mint, await bench.coins(16)
        quote = await mint.quote_melt(invoice(5_000), "sat")
        assert (quote.amount, quote.fee_reserve, quote.unit) == (5, 2, "sat")
        assert await mint.melt_quote(quote.quote) == Melt("UNPAID")
        assert await refused(mint.melt(quote.quote, await bench.coins(4), [])) == 11000
        blank = await bench.outputs(1, 1, 1, 1)
        paid = await mint.melt(quote.quote, coins, blank.messages)
        assert paid == await mint.melt_quote(quote.quote)
        assert (paid.state, len(paid.preimage)) == ("PAID", 64)
        blank.messages = blank.messages[: len(paid.change)]
        blank.secrets = blank.secrets[: len(paid.change)]
        assert sum(coin.amount for coin in blank.coins(paid.change)) == 16 - 1 - 5 - 1
        assert [signed for _, signed in await mint.restore(blank.messages)] == list(paid.change)
        assert await mint.states(_ys(coins)) == ["SPENT"]
        assert await refused(mint.melt(quote.quote, await bench.coins(16), [])) == 11000
        other = await mint.quote_melt(invoice(5_000), "sat")
        assert await refused(mint.melt(other.quote, coins, [])) == 11001
        assert await refused(mint.melt("none", coins, [])) == UNCLEAR

    async def test_a_lock_opens_to_its_key_only(self, bench: Bench) -> None:
        (key, to), (refund, back), (other, _) = _key(), _key(), _key()
        tags = [["sigflag", "SIG_INPUTS"], ["locktime", str(int(time.time()) + 900)]]
        coins = await bench.locked(to, *tags, ["refund", back])
        outputs = (await bench.outputs(1, 2)).messages
        assert await bench.refusal(coins, outputs) == UNCLEAR
        assert await bench.refusal(_signed(coins, other), outputs) == 11000
        assert await bench.refusal(_signed(coins, refund), outputs) == 11000
        for witness, code in (("{}", 11000), ("x", 11000), ('{"signatures":["ab"]}', UNCLEAR)):
            given = [replace(coin, witness=witness) for coin in coins]
            assert await bench.refusal(given, outputs) == code
        assert await bench.mint.states(_ys(coins)) == ["UNSPENT"]
        await bench.mint.swap(_signed(coins, key), outputs)

    async def test_after_the_locktime_the_refund_key_opens_it_too(self, bench: Bench) -> None:
        (key, to), (refund, back), (other, _) = _key(), _key(), _key()
        past = [["sigflag", "SIG_INPUTS"], ["locktime", str(int(time.time()) - 10)]]
        for opener in (key, refund):
            coins = await bench.locked(to, *past, ["refund", back])
            outputs = (await bench.outputs(1, 2)).messages
            assert await bench.refusal(_signed(coins, other), outputs) == 11000
            await bench.mint.swap(_signed(coins, opener), outputs)
        open_to_all = await bench.locked(to, *past)
        await bench.mint.swap(open_to_all, (await bench.outputs(1, 2)).messages)

    async def test_a_keyset_that_is_no_longer_in_use(self, turning: Bench) -> None:
        bench = turning
        coins, old = await bench.coins(4), await bench.outputs(1, 2)
        bench.rotate()
        new = await bench.outputs(1, 2)
        keysets = await bench.mint.keysets(refresh=True)
        assert not keysets[old.keyset.id].active
        assert keysets[new.keyset.id].active
        assert await bench.refusal(coins, old.messages) == 11000
        assert await bench.refusal(coins, [old.messages[0], new.messages[1]]) == 11000
        new.coins(await bench.mint.swap(coins, new.messages))
