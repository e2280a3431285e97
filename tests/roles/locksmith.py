"""What the scripted provider does with locked coins: all that payment B asks, or something else."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from nostrllm.core import coins
from nostrllm.core.money import unit_msat
from nostrllm.crypto.bdhke import public_key_of, sign_secret, sign_witness
from nostrllm.purse import Outcome, Purse
from nostrllm.purse.receive import checked
from nostrllm.purse.settle import Part
from nostrllm.wire.order import (
    LockedPayment,
    Order,
    Problem,
    Result,
    Settled,
    SignedChange,
    SignedOutput,
)
from nostrllm.wire.token import BlindedMessage, Proof, Token, parse_token


@dataclass
class Locksmithing:
    """How it behaves; as made, it is honest.

    `release`: "", "missing", "forged", "taken" (it signs, and swaps the coins all the same).
    """

    never_settles: bool = False
    tells_nothing: bool = False
    without_ladder: bool = False
    signs_less: int = 0
    hands_less: int = 0
    promises_less: int = 0
    forges: bool = False
    credits: bool = False
    credits_msat: int | None = None
    stale: bool = False
    settles_first: bool = False
    swaps_first: bool = False
    release: str = ""


@dataclass
class Locksmith:
    """A payment key and what it does."""

    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    @property
    def key(self) -> str:
        """Compressed, hex."""
        return public_key_of(self.secret)

    def witness(self, secret: str) -> str:
        """What spends a coin locked to the key."""
        return sign_witness(secret, self.secret, secrets.token_bytes(32))

    async def fee(self, purse: Purse, token: Token) -> int:
        """What the mint takes for the token, in units."""
        keysets = await purse._till.mints.at(token.mint).keysets()
        return coins.fee(await self.ready(purse, token), keysets)

    async def ready(self, purse: Purse, token: Token) -> tuple[Proof, ...]:
        """The coins with what spends them."""
        keysets = await purse._till.mints.at(token.mint).keysets(refresh=True)
        return tuple(checked(one, token.unit, keysets, self.witness) for one in token.proofs)

    async def swapped(self, purse: Purse, name: str, token: Token) -> Outcome:
        """Take the token before any work."""
        plan = await purse.plan_receive(name, token, ladder=True, owner="", unlock=self.witness)
        await purse._till.store.commit(*plan.writes)
        return await purse.run(name)

    def promise(
        self, order: Order, token: Token, spent_msat: int, manners: Locksmithing
    ) -> tuple[SignedChange | None, int]:
        """The change that is to be signed, and the credit."""
        assert isinstance(order.payment, LockedPayment)
        coin = unit_msat(token.unit)
        rest = token.amount * coin - spent_msat
        units = coins.most([output.amount for output in order.payment.outputs], rest // coin)
        units = 0 if units <= 1 else units - manners.promises_less
        signed = SignedChange(mint=token.mint, unit=token.unit, amount=units) if units else None
        return signed, rest - (units + manners.promises_less) * coin

    def released(self, order: Order, manners: Locksmithing) -> list[str] | None:
        """The key's signatures on the coins' secrets."""
        if not isinstance(order.payment, LockedPayment) or manners.release == "missing":
            return None
        key = secrets.token_bytes(32) if manners.release == "forged" else self.secret
        proofs = parse_token(order.payment.token).proofs
        return [sign_secret(proof.secret, key, secrets.token_bytes(32)) for proof in proofs]

    async def settle(
        self,
        purse: Purse,
        name: str,
        order: Order,
        result: Result,
        manners: Locksmithing,
        order_id: str = "",
    ) -> Settled | None:
        """Swap the coins, the change signed; what to say of it."""
        assert isinstance(order.payment, LockedPayment)
        order_id = order_id or result.order
        if manners.never_settles:
            return None
        if manners.stale:
            problem = Problem(code="payment-outputs-stale", message="other outputs, please")
            return Settled(order=order_id, problem=problem)
        token = parse_token(order.payment.token)
        units = 0 if result.signed is None else result.signed.amount - manners.signs_less
        if manners.without_ladder or manners.credits:
            units = 0
        rungs = [BlindedMessage(one.amount, one.id, one.B_) for one in order.payment.outputs]
        chosen = coins.subset([rung.amount for rung in rungs], units) or []
        inputs = await self.ready(purse, token)
        part = Part(order_id, inputs, tuple(rungs[index] for index in chosen))
        plan = await purse.plan_settle(f"{name}:settle", token.mint, token.unit, [part])
        await purse._till.store.commit(*plan.writes)
        outcome = await purse.run(f"{name}:settle")
        assert outcome.state == "DONE", outcome
        if manners.tells_nothing or result.signed is None:
            return None
        if manners.credits:
            credit_msat = result.signed.amount * unit_msat(token.unit)
            if manners.credits_msat is not None:
                credit_msat = manners.credits_msat
            return Settled(order=order_id, credit_msat=credit_msat)
        return Settled(order=order_id, signed=_signed(result.signed, outcome, manners))


def _signed(promised: SignedChange, outcome: Outcome, manners: Locksmithing) -> SignedChange:
    rows = []
    for row in outcome.signed[manners.hands_less :]:
        signature = row.signature
        assert signature.dleq is not None
        e = "11" * 32 if manners.forges else signature.dleq.e
        rows.append(
            SignedOutput(
                amount=signature.amount,
                id=signature.id,
                B_=row.output.B_,
                C_=signature.C_,
                e=e,
                s=signature.dleq.s,
            )
        )
    return promised.model_copy(update={"signatures": rows})
