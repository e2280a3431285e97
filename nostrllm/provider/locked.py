"""Locked tokens: money that only we can take, believed without the mint (payment B).

Everything that can be checked is checked here, offline: the lock byte by byte, the mint's signature
on every coin, the client's outputs, and how much all such tokens may be worth together, for until
they are swapped the mint's word is all there is. What does not pass is refused, and given back if
it is ours to give; what is too large to be believed is swapped before any work.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from nostrllm.core import coins, ledger
from nostrllm.core.lock import Wanted, common_lock
from nostrllm.core.pace import Pace
from nostrllm.crypto.bdhke import is_point, y_of
from nostrllm.errors import NostrllmError, RemoteError
from nostrllm.ports import Conflict, Keyset, Row, Write
from nostrllm.provider.paymentkey import PaymentKey
from nostrllm.provider.shop import Shop, World
from nostrllm.provider.ticket import post
from nostrllm.provider.tokens import LockedToken, Offered
from nostrllm.provider.trial import Trials
from nostrllm.purse.receive import checked
from nostrllm.purse.till import keyset_in_use, keysets_with
from nostrllm.wire.token import BlindedMessage, Proof, Token

#: Our time to settle: a coin is locked to us for so long after the first word is due, at least.
LOCKTIME_S_MIN: Final = 3_600
LOCKTIME_S_MAX: Final = 86_400

#: Each coin's proof takes a quarter of a millisecond to check, and it costs nobody anything to ask.
PROOFS_MAX: Final = 32
RELEASES_PER_MINUTE: Final = 30

#: No locktime is later.
FOR_EVER: Final = 1 << 40

#: A mint whose clock is so far off is not believed about locktimes.
SKEW_S_MAX: Final = 300.0


class Locks:
    """Judges locked tokens, and signs for them with the payment key."""

    def __init__(self, world: World, shop: Shop, key: PaymentKey, trials: Trials) -> None:
        self._world = world
        self._shop = shop
        self._trials = trials
        self._key = key
        self._releases = Pace(RELEASES_PER_MINUTE)
        #: Is nothing known to wait for this mint? Else nothing of it is taken meanwhile.
        self.answers: Callable[[str], bool] = lambda mint: True

    def unlock(self, secret: str) -> str:
        """The witness by which the mint takes a coin that is locked to us."""
        return self._key.unlock(secret)

    def release(self, proofs: Sequence[Proof]) -> list[str]:
        """What a client needs to take these coins back."""
        return [self._key.sign(proof.secret) for proof in proofs]

    # judging

    async def judge(self, offered: Offered) -> LockedToken:
        """Every check that needs nobody's word.

        Raises RemoteError: payment-token-locked-wrong, payment-token-invalid,
        payment-outputs-wrong, payment-outputs-stale, payment-amount-low, payment-mint-unaccepted;
        OutcomeUnknown while the mint's keys are not known.
        """
        token, mint = offered.token, self._world.mints.at(offered.token.mint)
        if len(token.proofs) > PROOFS_MAX:
            raise RemoteError(
                f"a locked token has {PROOFS_MAX} coins at most", code="payment-token-invalid"
            )
        names = {proof.id for proof in token.proofs} | {output.id for output in offered.outputs}
        keysets = await keysets_with(mint, names, wait=True)
        locktime = common_lock([proof.secret for proof in token.proofs], self._wanted(offered))
        proofs = tuple(_signed(proof, token.unit, keysets) for proof in token.proofs)
        fee = coins.fee(proofs, keysets)
        if token.amount <= fee:
            raise RemoteError(
                f"the token's {token.amount} {token.unit} do not exceed the mint's fee of {fee}",
                code="payment-amount-low",
            )
        _check_outputs(offered.outputs, token.unit, keysets)
        return LockedToken(
            id=offered.id,
            author=offered.author,
            known=bool(await self._world.store.read("author_paid", author=offered.author)),
            mint=mint.url,
            unit=token.unit,
            worth=token.amount,
            fee=fee,
            locktime=locktime,
            proofs=proofs,
            outputs=offered.outputs,
        )

    def _wanted(self, offered: Offered) -> Wanted:
        """What our own lock looks like, by the mint's clock."""
        ahead = int(self._world.mints.at(offered.token.mint).skew_s or 0)
        now = self._world.now_s() + ahead
        if offered.deadline is None:
            return Wanted(self._key.public, 0, FOR_EVER)
        soonest = max(now, offered.deadline + ahead) + LOCKTIME_S_MIN
        return Wanted(self._key.public, soonest, now + LOCKTIME_S_MAX)

    async def is_believed(self, token: LockedToken) -> bool:
        """May we work for it before the mint has given us anything?

        Only if its whole change can be signed in its own swap: what had to be credited would be
        cash in the client's hands before the token is in ours.
        """
        if not coins.covers(token.rungs, token.worth - token.fee):
            return False
        limits, mint = self._shop.exposure, self._world.mints.at(token.mint)
        if token.worth_msat > limits.swap_first_msat or abs(mint.skew_s or 0.0) > SKEW_S_MAX:
            return False
        if not await self._trials.passed(token.mint):
            return False
        (held,) = await self._world.store.read(
            "locked_exposure", mint=token.mint, author=token.author
        )
        left = [
            limits.total_msat - held["total_msat"],
            limits.mint_msat - held["mint_msat"],
            limits.client_msat - held["client_msat"],
        ]
        if not token.known:
            left.append(limits.strangers_msat - held["strangers_msat"])
        return bool(min(left) >= token.worth_msat)

    # writing down

    def accepted(self, token: LockedToken) -> list[Write]:
        """The writes that take a token for an order, to be committed with it.

        Conflicts: `claim_insert` (a coin was seen before), `rung_insert` (an output was),
        `locked_over` (others took what room there was).
        """
        limits = self._shop.exposure
        over = {
            "mint": token.mint,
            "author": token.author,
            "known": int(token.known),
            "total_max": limits.total_msat,
            "mint_max": limits.mint_msat,
            "client_max": limits.client_msat,
            "strangers_max": limits.strangers_msat,
        }
        lines = ledger.lock_accepted(token.id, token.place, token.worth_msat)
        return [
            *self._taken(token, "accepted"),
            *_rungs(token),
            Write("locked_over", over, rows=0),
            *post(f"locked:{token.id}", lines, self._world.now_s()),
        ]

    async def give_back(self, offered: Offered) -> list[str] | None:
        """Release a token whose message is refused; None when it is not ours to release.

        Its coins are taken for the message in the same commit, so one that pays for an order, or
        was released before, is not.
        """
        if self._releases.count("", self._world.clock.monotonic()) != "pass":
            return None
        try:
            if await self._is_claimed(offered.token):
                return None
            token = await self.judge(offered)
            await self._world.store.commit(*self._taken(token, "released"))
        except (NostrllmError, Conflict):
            return None
        return self.release(token.proofs)

    async def _is_claimed(self, token: Token) -> bool:
        """Was a coin of it seen before? Asked first, for it costs less than any other check."""
        for proof in token.proofs:
            if await self._world.store.read("claim_anywhere", y=y_of(proof.secret)):
                return True
        return False

    def _taken(self, token: LockedToken, state: str) -> list[Write]:
        claims = [
            Write("claim_insert", {"mint": token.mint, "y": y_of(proof.secret), "owner": token.id})
            for proof in token.proofs
        ]
        row = {
            "id": token.id,
            "author": token.author,
            "known": int(token.known),
            "mint": token.mint,
            "unit": token.unit,
            "worth": token.worth,
            "worth_msat": token.worth_msat,
            "locktime": token.locktime,
            "proofs": _json(token.proofs) if state == "accepted" else "[]",
            "outputs": _json(token.outputs) if state == "accepted" else "[]",
            "state": state,
            "at": self._world.now_s(),
        }
        return [*claims, Write("locked_insert", row)]

    async def stored(self, order_id: str) -> Row:
        """The row of a token that was taken."""
        return (await self._world.store.read("locked_get", id=order_id))[0]

    async def replace_outputs(self, row: Row, outputs: tuple[BlindedMessage, ...]) -> None:
        """Other outputs for change that is due, where they were asked for.

        Raises RemoteError `payment-outputs-wrong`.
        """
        if not row["asked_at"]:
            return
        keysets = await self._world.mints.at(row["mint"]).keysets(refresh=True)
        _check_outputs(outputs, row["unit"], keysets)
        units = int(row["change_units"])
        if coins.most([output.amount for output in outputs], units) != units:
            raise RemoteError("these outputs cannot make the change", code="payment-outputs-wrong")
        values = {"id": row["id"], "outputs": _json(outputs), "was": row["outputs"]}
        rungs = [
            Write("rung_insert", {"mint": row["mint"], "b": output.B_, "owner": row["id"]})
            for output in outputs
        ]
        try:
            await self._world.store.commit(*rungs, Write("locked_outputs", values, rows=1))
        except Conflict as conflict:
            if conflict.name == "rung_insert":
                raise _used() from None


def proofs_of(row: Row) -> tuple[Proof, ...]:
    """The coins of a stored token."""
    return tuple(map(Proof.from_dict, json.loads(row["proofs"])))


def outputs_of(row: Row) -> tuple[BlindedMessage, ...]:
    """The outputs that came with a stored token."""
    return tuple(map(BlindedMessage.from_dict, json.loads(row["outputs"])))


def refused(conflict: Conflict) -> RemoteError | None:
    """Why a locked token could not be taken after all; None for a conflict of something else."""
    if conflict.name == "rung_insert":
        return _used()
    if conflict.name == "locked_over":
        return RemoteError("too much is locked to us already; try again soon", code="busy")
    return None


def _json(parts: Sequence[Proof] | Sequence[BlindedMessage]) -> str:
    return json.dumps([part.as_dict() for part in parts])


def _used() -> RemoteError:
    return RemoteError(
        "an output was in an order before", code="payment-outputs-wrong", fraud="ladder"
    )


def _rungs(token: LockedToken) -> list[Write]:
    return [
        Write("rung_insert", {"mint": token.mint, "b": output.B_, "owner": token.id})
        for output in token.outputs
    ]


def _signed(proof: Proof, unit: str, keysets: Mapping[str, Keyset]) -> Proof:
    """The coin under its full keyset id, its DLEQ proof there and true. Raises RemoteError."""
    if proof.dleq is None or proof.dleq.r is None:
        raise RemoteError(
            "a locked coin needs the mint's proof (DLEQ)", code="payment-token-invalid"
        )
    return replace(checked(proof, unit, keysets, lambda secret: ""), witness=None)


def _check_outputs(
    outputs: Sequence[BlindedMessage], unit: str, keysets: Mapping[str, Keyset]
) -> None:
    """Can the mint sign them beside ours?

    Raises RemoteError `payment-outputs-wrong`, `payment-outputs-stale` for a keyset that was.
    """
    names = {output.B_ for output in outputs}
    keyset = keyset_in_use(keysets, unit, ())
    others = {output.id for output in outputs} - {keyset.id}
    if others and all(name in keysets and keysets[name].unit == unit for name in others):
        raise RemoteError("the mint signs with another keyset now", code="payment-outputs-stale")
    good = len(names) == len(outputs) and all(
        output.id == keyset.id and output.amount in keyset.keys and is_point(output.B_)
        for output in outputs
    )
    if not good:
        raise RemoteError(
            "the mint cannot sign these outputs", code="payment-outputs-wrong", fraud="ladder"
        )
