"""A mint with blind signatures: what nutshell does and refuses, by the tests that both pass.

It signs in whatever group it is given; coins are its own liability until they are spent.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

from nostrllm.core import coins
from nostrllm.core.lock import is_locked
from nostrllm.crypto import bdhke
from nostrllm.crypto.keys import ORDER
from nostrllm.errors import MintRefused, OutcomeUnknown
from nostrllm.ports import Keyset, Melt, MeltQuote, MintQuote
from nostrllm.wire.invoice import parse_invoice
from nostrllm.wire.token import BlindedMessage, BlindSignature, Dleq, Proof
from tests.sim.group import CURVE, Group

URL: Final = "https://mint.example"
UNIT: Final = "sat"

#: What paying an invoice may cost, and what it does cost here, in units.
RESERVE: Final = 2
ROUTE: Final = 1
QUOTE_S: Final = 3_600


@cache
def _keys(group: Group, generation: int) -> dict[int, Any]:
    seeds = {1 << n: f"{generation} {n}".encode() for n in range(16)}
    return {amount: group.key(hashlib.sha256(seed).digest()) for amount, seed in seeds.items()}


@cache
def keyset_with(group: Group, generation: int, fee_ppk: int) -> Keyset:
    """A keyset of the mint, in use."""
    pairs = _keys(group, generation).items()
    keys = {amount: key.public_key.format().hex() for amount, key in pairs}
    return Keyset(bdhke.keyset_id_v1(keys, UNIT, fee_ppk), UNIT, True, fee_ppk, keys)


@dataclass
class _Invoice:
    """One that we are to be paid (`amount` coins come of it), or to pay."""

    request: str
    amount: int
    state: str
    change: tuple[BlindSignature, ...] = ()


class SimMint:
    """The mint itself: what it signed, what is spent, and what it owes. `now`: its clock."""

    info: Final = {"nuts": {str(n): {"supported": True} for n in (7, 9, 11, 12)}}

    def __init__(
        self, fee_ppk: int, group: Group = CURVE, now: Callable[[], float] = time.time
    ) -> None:
        self._fee_ppk = fee_ppk
        self._group = group
        self._now = now
        self.keysets: list[Keyset] = [keyset_with(group, 0, fee_ppk)]
        self.issued = self.melted = self.fees = 0
        self.spent: set[str] = set()
        self.pending: set[str] = set()
        self._signed: dict[str, BlindSignature] = {}
        self._invoices: dict[str, _Invoice] = {}

    @property
    def owed(self) -> int:
        """What all unspent coins are worth."""
        return self.issued - self.melted - self.fees

    def rotate(self) -> None:
        """Sign with other keys from now on; coins of the old ones stay good."""
        old = [replace(keyset, active=False) for keyset in self.keysets]
        self.keysets = [*old, keyset_with(self._group, len(old), self._fee_ppk)]

    # with customers whose line is good

    def issue(self, amounts: Sequence[int], rng: random.Random) -> tuple[Proof, ...]:
        """Coins for somebody, without proofs of signature."""
        self.issued += sum(amounts)
        secrets = [rng.randbytes(32).hex() for _ in amounts]
        return tuple(
            Proof(self.keysets[-1].id, amount, secret, self._c(self.keysets[-1].id, secret, amount))
            for amount, secret in zip(amounts, secrets, strict=True)
        )

    def sell(self, outputs: Sequence[BlindedMessage]) -> list[BlindSignature]:
        """Sign outputs that somebody paid for in cash. Raises MintRefused."""
        self._check_outputs(outputs)
        signatures = [self._sign(output) for output in outputs]
        self._keep(outputs, signatures)
        self.issued += sum(output.amount for output in outputs)
        return signatures

    def let_locks_pass(self) -> None:
        """From now on every locktime is over."""
        self._now = lambda: float(1 << 40)

    def melt(self, proofs: Sequence[Proof]) -> int:
        """Pay coins out; what they were worth after the fee. Raises MintRefused."""
        net = self._checked(proofs)
        self._spend(proofs)
        self.melted += net
        return net

    def unspent(self, proofs: Sequence[Proof]) -> bool:
        """Are all of them unspent?"""
        return not any(bdhke.y_of(proof.secret) in self.spent for proof in proofs)

    # NUT-03, NUT-07, NUT-09

    def swap(
        self, inputs: Sequence[Proof], outputs: Sequence[BlindedMessage]
    ) -> list[BlindSignature]:
        """Raises MintRefused, OutcomeUnknown for what nutshell refuses without a reason."""
        net = self._checked(inputs)
        self._check_outputs(outputs)
        if sum(output.amount for output in outputs) != net:
            raise _refused(11000)
        signatures = [self._sign(output) for output in outputs]
        self._spend(inputs)
        self._keep(outputs, signatures)
        return signatures

    def restore(
        self, outputs: Sequence[BlindedMessage]
    ) -> list[tuple[BlindedMessage, BlindSignature]]:
        """Those that were signed, whatever amount is asked for."""
        return [(out, self._signed[out.B_]) for out in outputs if out.B_ in self._signed]

    def state(self, y: str) -> str:
        """UNSPENT too for a coin that never was."""
        if y in self.spent:
            return "SPENT"
        return "PENDING" if y in self.pending else "UNSPENT"

    # NUT-04: invoices to us, which pay themselves

    def quote_mint(self, amount: int, unit: str) -> MintQuote:
        """Raises MintRefused."""
        if unit != UNIT:
            raise _refused(10000)
        quote = f"mint-{len(self._invoices)}"
        self._invoices[quote] = _Invoice(f"lnbc{quote}", amount, "PAID")
        return self.mint_quote(quote)

    def mint_quote(self, quote: str) -> MintQuote:
        """Raises OutcomeUnknown for one that is none."""
        found = self._invoice(quote, "mint")
        expiry = int(self._now()) + QUOTE_S
        return MintQuote(quote, found.request, found.amount, UNIT, found.state, expiry)

    def mint(self, quote: str, outputs: Sequence[BlindedMessage]) -> list[BlindSignature]:
        """Raises MintRefused."""
        found = self._invoice(quote, "mint")
        if found.state == "ISSUED":
            raise _refused(20002)
        self._check_outputs(outputs)
        if sum(output.amount for output in outputs) != found.amount:
            raise _refused(11000)
        signatures = [self._sign(output) for output in outputs]
        self._keep(outputs, signatures)
        found.state = "ISSUED"
        self.issued += found.amount
        return signatures

    # NUT-05: invoices of others, all of which can be paid

    def quote_melt(self, request: str, unit: str) -> MeltQuote:
        """Raises MintRefused."""
        if unit != UNIT:
            raise _refused(10000)
        amount = -(-(parse_invoice(request).amount_msat or 0) // 1_000)
        quote = f"melt-{len(self._invoices)}"
        self._invoices[quote] = _Invoice(request, amount, "UNPAID")
        return MeltQuote(quote, request, amount, UNIT, RESERVE, int(self._now()) + QUOTE_S)

    def melt_quote(self, quote: str) -> Melt:
        """Raises OutcomeUnknown for one that is none."""
        found = self._invoice(quote, "melt")
        preimage = "0" * 64 if found.state == "PAID" else ""
        return Melt(found.state, found.change, preimage)

    def pay(self, quote: str, inputs: Sequence[Proof], blanks: Sequence[BlindedMessage]) -> Melt:
        """Pay an invoice with coins, its change on blank outputs (NUT-08). Raises MintRefused."""
        found = self._invoice(quote, "melt")
        if found.state != "UNPAID":
            raise _refused(11000)
        net = self._checked(inputs)
        if net < found.amount + RESERVE:
            raise _refused(11000)
        rest = sorted(coins.split(net - found.amount - ROUTE), reverse=True)
        outputs = [replace(out, amount=n) for out, n in zip(blanks, rest, strict=False)]
        signatures = [self._sign(output) for output in outputs]
        self._spend(inputs)
        self._keep(outputs, signatures)
        self.melted += net - sum(output.amount for output in outputs)
        found.state, found.change = "PAID", tuple(signatures)
        return self.melt_quote(quote)

    # checks

    def _checked(self, proofs: Sequence[Proof]) -> int:
        """What the coins leave after the fee. Raises MintRefused unless they can be spent."""
        ys = [bdhke.y_of(proof.secret) for proof in proofs]
        if len(set(ys)) < len(ys):
            raise _refused(11007)
        if any(self._c(proof.id, proof.secret, proof.amount) != proof.C for proof in proofs):
            raise _refused(10001)
        if any(y in self.spent for y in ys):
            raise _refused(11001, "payment-token-spent")
        if any(y in self.pending for y in ys):
            raise _refused(11002, "payment-pending")
        for proof in proofs:
            check_lock(proof, self._now())
        return sum(proof.amount for proof in proofs) - self.fee(len(proofs))

    def _check_outputs(self, outputs: Sequence[BlindedMessage]) -> None:
        if not outputs:
            raise _unclear()
        if len({output.B_ for output in outputs}) < len(outputs):
            raise _refused(11008, "internal")
        if len({output.id for output in outputs}) > 1:
            raise _refused(11000)
        if any(output.amount <= 0 for output in outputs):
            raise _refused(10000)
        if outputs[0].id != self.keysets[-1].id:
            raise _refused(11000)
        if any(output.B_ in self._signed for output in outputs):
            raise _refused(11003, "internal")

    def fee(self, count: int) -> int:
        """What spending so many coins costs."""
        return -(-count * self._fee_ppk // 1_000)

    def _spend(self, proofs: Sequence[Proof]) -> None:
        self.spent |= {bdhke.y_of(proof.secret) for proof in proofs}
        self.fees += self.fee(len(proofs))

    def _keep(
        self, outputs: Sequence[BlindedMessage], signatures: Sequence[BlindSignature]
    ) -> None:
        for output, signature in zip(outputs, signatures, strict=True):
            self._signed[output.B_] = signature

    def _invoice(self, quote: str, kind: str) -> _Invoice:
        if quote not in self._invoices or not quote.startswith(kind):
            raise _unclear()
        return self._invoices[quote]

    def _key(self, keyset_id: str, amount: int) -> Any:
        """The key of a keyset whose id may be the short one. Raises OutcomeUnknown."""
        found = [n for n, keyset in enumerate(self.keysets) if keyset.id.startswith(keyset_id)]
        key = _keys(self._group, found[0]).get(amount) if len(found) == 1 else None
        if key is None:
            raise _unclear()
        return key

    def _c(self, keyset_id: str, secret: str, amount: int) -> str:
        y = bdhke.hash_to_curve(secret.encode())
        return str(y.multiply(self._key(keyset_id, amount).secret).format().hex())

    def _sign(self, output: BlindedMessage) -> BlindSignature:
        key = self._key(output.id, output.amount)
        try:
            b = self._group.point(bytes.fromhex(output.B_))
        except ValueError:
            raise _unclear() from None
        c = b.multiply(key.secret)
        nonce = hashlib.sha256(key.secret + b.format()).digest()
        e = bdhke.hash_e((self._group.key(nonce).public_key, b.multiply(nonce), key.public_key, c))
        s = int.from_bytes(nonce, "big") + int.from_bytes(e, "big") * int.from_bytes(
            key.secret, "big"
        )
        dleq = Dleq(e.hex(), (s % ORDER).to_bytes(32, "big").hex())
        return BlindSignature(output.amount, output.id, c.format().hex(), dleq)


def check_lock(proof: Proof, now: float) -> None:
    """May a coin with this witness be spent now (NUT-11, SIG_INPUTS)? Raises MintRefused.

    As nutshell reads it: the payee's key always can, a refund key from the locktime on, and from
    then on anybody if there is none.
    """
    if not is_locked(proof.secret):
        return
    _, lock = json.loads(proof.secret)
    tags: dict[str, list[str]] = {name: values for name, *values in lock["tags"]}
    over = "locktime" in tags and int(tags["locktime"][0]) < now
    refunds = tags.get("refund", [])
    if over and not refunds:
        return
    if proof.witness is None:
        raise _unclear()
    keys = [lock["data"], *(refunds if over else [])]
    for signature in _signatures(proof.witness):
        if len(signature) != 128:
            raise _unclear()
        if any(bdhke.verify_secret(proof.secret, signature, key) for key in keys):
            return
    raise _refused(11000)


def _signatures(witness: str) -> Iterator[str]:
    try:
        yield from json.loads(witness)["signatures"]
    except (ValueError, LookupError, TypeError):
        return


def _refused(code: int, wire_code: str = "payment-token-invalid") -> MintRefused:
    return MintRefused(code, "refused", code=wire_code)


def _unclear() -> OutcomeUnknown:
    """Nutshell's code 0: a no whose reason it does not say."""
    return OutcomeUnknown("the mint failed, for no reason that we know", answered=True)
