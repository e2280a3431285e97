"""Payment B from our side: coins that only the provider can spend until a time, and their change.

The outputs for the change are written down before anybody sees them, so it can always be found at
the mint alone; after the locktime what nobody took is ours again by our own refund keys. Nothing
here needs the provider.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from nostrllm.client.bargain import Bargain, Breach
from nostrllm.client.payment import paid_with
from nostrllm.client.purchases import Purchase
from nostrllm.client.quote import Question, Quote
from nostrllm.client.world import World
from nostrllm.core.coins import ladder, split
from nostrllm.crypto.bdhke import verify_secret, witness
from nostrllm.errors import LocalError, OutcomeUnknown, RemoteError
from nostrllm.ports import Write
from nostrllm.purse.locked import Locked
from nostrllm.wire.order import LockedPayment, Output, Result, SignedChange
from nostrllm.wire.token import BlindedMessage, BlindSignature, Dleq, encode_token

#: Locktimes are full hours, so that they say little of when an order was sent.
ROUND_S: Final = 3_600
#: A provider takes coins that are locked so long beyond the deadline, and no longer than that.
MARGIN_S: Final = 3_600
LOCK_S_MAX: Final = 86_400
#: Clocks differ by so much, and messages travel so long.
SLACK_S: Final = 60
#: Who answered has so long after the locktime before we take back what he never took.
GRACE_S: Final = 86_400
#: The mint's clock is known to a second or two.
CLOCK_S: Final = 2
#: A locked coin in a token is no longer than this in base64, nor an output in a JSON string.
COIN_BYTES: Final = 700
OUTPUT_BYTES: Final = 240
#: A mint changes its keyset no more often than this while one order is settled.
LADDERS_MAX: Final = 3


async def mint_now(world: World, url: str) -> float:
    """Unix seconds by the mint's own clock, which decides over locktimes. Raises OutcomeUnknown."""
    mint = world.mints.at(url)
    if mint.skew_s is None:
        await mint.info()
    return world.square.clock.now() + (mint.skew_s or 0.0)


def locktime_for(now: float, skew_s: float, deadline: int) -> int:
    """A full hour that leaves the provider his time after the deadline.

    `skew_s`: by how much the mint's clock is ahead of ours, which gave `now` and `deadline`.
    Raises LocalError when the deadline is too far away.
    """
    least = deadline + MARGIN_S + SLACK_S + max(0, int(skew_s))
    most = int(now) + LOCK_S_MAX - SLACK_S + min(0, int(skew_s))
    hour = min(-(-least // ROUND_S), most // ROUND_S) * ROUND_S
    if hour < least:
        raise LocalError("coins cannot be locked for so long a deadline", code="message-invalid")
    return hour


@dataclass(frozen=True, slots=True)
class Prepared:
    """A locked payment: commit `writes` before anybody sees it."""

    payment: LockedPayment
    bargain: Bargain
    writes: tuple[Write, ...] = ()


async def prepare(
    world: World, purchase: Purchase, question: Question, quoted: Quote, bargain: Bargain
) -> Prepared:
    """Make the coins, locked to the provider, and outputs for their change.

    Raises LocalError `wallet-empty`, OutcomeUnknown, RemoteError.
    """
    purse, now = world.purse, world.square.clock.now()
    skew_s = await mint_now(world, quoted.mint) - now
    key = quoted.offer.announcement.payment_key
    locktime = locktime_for(now, skew_s, bargain.deadline)
    token = await purse.send(
        purchase.token_op, quoted.mint, quoted.unit, quoted.amount, lock=(key, locktime)
    )
    outputs: tuple[BlindedMessage, ...] = ()
    writes: tuple[Write, ...] = ()
    if question.change == "ecash":
        write, outputs = await purse.plan_ladder(
            purchase.ladder_op(), quoted.mint, quoted.unit, quoted.amount
        )
        writes = (write,)
    known = {"locktime": locktime, "rungs": tuple(output.amount for output in outputs)}
    bargain = (await paid_with(world, bargain, token)).model_copy(update=known)
    payment = LockedPayment(token=encode_token(token), outputs=_wire(outputs))
    return Prepared(payment, bargain, writes)


def room_for(amount: int) -> int:
    """The bytes that such a payment of `amount` units has in an order, at most."""
    return COIN_BYTES * (1 + len(split(amount))) + OUTPUT_BYTES * len(ladder(amount))


def _wire(outputs: Sequence[BlindedMessage]) -> list[Output]:
    return [Output(amount=one.amount, id=one.id, B_=one.B_) for one in outputs]


def promised_units(bargain: Bargain, result: Result) -> int:
    """How much change the provider owes us after a result, by its own figures."""
    rest = bargain.paid_msat - result.cost_msat - result.fee_msat - result.credit_msat
    if result.change is not None or not bargain.rungs:
        return 0
    return max(0, rest // bargain.coin_msat)


def locked_until(purchase: Purchase) -> str:
    """For a person: from when on the coins of a purchase can be taken back; "" if at any time."""
    if purchase.bargain is None or purchase.bargain.pay != "locked":
        return ""
    at = datetime.fromtimestamp(purchase.bargain.locktime, UTC)
    return f" (they are locked until {at:%Y-%m-%d %H:%M} UTC, and taken back then)"


@dataclass(frozen=True, slots=True)
class Found:
    """What has come of the change of an order: `units` are ours, `wrong` is what was amiss.

    `over`: no more will come.
    """

    units: int = 0
    wrong: tuple[Breach, ...] = ()

    @property
    def over(self) -> bool:
        """Was anything found? A mint signs all of an order's change at once."""
        return self.units > 0


class Locks:
    """Locked coins of purchases, and how they come back."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def of(self, purchase: Purchase) -> Locked | None:
        """How the coins of a purchase are locked; None if they are not."""
        return await self._world.purse.lock_of(purchase.token_op)

    async def is_over(self, lock: Locked, *, grace_s: int = 0) -> bool:
        """Is the locktime past, by the mint's clock, and `grace_s` more? Raises OutcomeUnknown."""
        now = await mint_now(self._world, lock.mint)
        return now > lock.locktime + CLOCK_S + grace_s

    async def release(
        self, purchase: Purchase, bargain: Bargain, signatures: Sequence[str]
    ) -> list[Breach]:
        """Take the coins back with the provider's own signatures on their secrets; at once.

        ["change-pending"] while the mint does not answer, ["release-invalid"] when they are none,
        or the coins were taken all the same.
        """
        purse, lock = self._world.purse, await self.of(purchase)
        if lock is None or not _signed_by(lock, signatures):
            return ["release-invalid"]
        ready = dict(zip(lock.secrets, map(witness, signatures), strict=True))
        try:
            back = await purse.reclaim(purchase.token_op, unlock=ready.get)
        except OutcomeUnknown:
            return ["change-pending"]
        except RemoteError:
            return ["release-invalid"]
        except LocalError as error:  # back already, or worth no more than the fee
            dust = error.code == "payment-amount-low"
            back_already = dust or await purse.came_back(purchase.token_op)
            return [] if back_already else ["release-invalid"]
        if back.state == "DONE":
            return []
        return ["change-pending" if back.state == "PREPARED" else "release-invalid"]

    async def ladders(self, purchase: Purchase) -> list[str]:
        """The operations of the outputs that were shown for this purchase, oldest first."""
        names = [purchase.ladder_op(number) for number in range(LADDERS_MAX)]
        return [name for name in names if await self._world.purse.knows(name)]

    async def look(self, purchase: Purchase) -> Found:
        """What of the outputs the mint has signed, by its own word."""
        purse, units = self._world.purse, 0
        wrong: list[Breach] = []
        for name in await self.ladders(purchase):
            outcome = await purse.run(name)
            units += 0 if outcome.state == "PREPARED" else sum(one.amount for one in outcome.proofs)
            wrong += ["signatures-invalid"] if outcome.suspect else []
        return Found(units, tuple(wrong))

    async def take(self, purchase: Purchase, signed: SignedChange, least: int) -> Found:
        """Take the signatures that the provider hands us; the mint is asked if they will not do.

        They do when they are good and on outputs worth `least` units together.
        """
        purse, units = self._world.purse, 0
        names = await self.ladders(purchase)
        ours = {one.B_: one.amount for name in names for one in await purse.outputs_of(name)}
        handed = {
            one.B_: BlindSignature(one.amount, one.id, one.C_, Dleq(one.e, one.s))
            for one in signed.signatures
            if ours.get(one.B_) == one.amount
        }
        if not handed or sum(ours[name] for name in handed) < least:
            return await self.look(purchase)
        for name in names:
            outcome = await purse.take_signed(name, handed)
            if outcome.suspect:
                found = await self.look(purchase)
                return Found(found.units, ("signatures-invalid", *found.wrong))
            units += outcome.amount if outcome.state == "DONE" else 0
        return Found(units)

    async def renewed(
        self, purchase: Purchase, bargain: Bargain
    ) -> tuple[Write, list[Output]] | None:
        """Outputs of the keyset that the mint uses now, to be written down before they are shown.

        None when there were too many already. Raises OutcomeUnknown, RemoteError.
        """
        used = len(await self.ladders(purchase))
        if not 0 < used < LADDERS_MAX:
            return None
        await self._world.mints.at(bargain.mint).keysets(refresh=True)
        units = bargain.paid_msat // bargain.coin_msat
        write, outputs = await self._world.purse.plan_ladder(
            purchase.ladder_op(used), bargain.mint, bargain.unit, units
        )
        return write, _wire(outputs)

    async def stale(self, purchase: Purchase, bargain: Bargain) -> bool:
        """Is the keyset of our last outputs no longer the mint's? Raises OutcomeUnknown."""
        ladders = await self.ladders(purchase)
        if not ladders:
            return False
        keysets = await self._world.mints.at(bargain.mint).keysets(refresh=True)
        keyset = keysets.get(await self._world.purse.keyset_of(ladders[-1]))
        return keyset is None or not keyset.active

    async def closing(self, purchase: Purchase, *, gone: bool) -> list[Write]:
        """What is written when nothing more will come: outputs are not looked for any longer.

        `gone`: the provider has the coins.
        """
        purse = self._world.purse
        writes = [purse.unused(name) for name in await self.ladders(purchase)]
        return [*writes, purse.gone(purchase.token_op)] if gone else writes


def _signed_by(lock: Locked, signatures: Sequence[str]) -> bool:
    return len(signatures) == len(lock.secrets) and all(
        verify_secret(secret, signature, lock.key)
        for secret, signature in zip(lock.secrets, signatures, strict=True)
    )
