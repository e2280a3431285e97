"""What wallets send for a payment request: coins in, credit to whoever asked, never to the sender.

A wallet pays once, from a key that nobody reads, and forgets. So whatever comes for a request of
ours is taken, late, double, short or over; what cannot be taken is refused before anything is, and
coins that are locked to us are signed and given back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import structlog

from nostrllm.core.pace import Pace
from nostrllm.crypto.bdhke import y_of
from nostrllm.errors import MintRefused, OutcomeUnknown, RemoteError, WorldError
from nostrllm.ports import Conflict, Row, Write
from nostrllm.provider.accounts import Accounts, Aside
from nostrllm.provider.admit import Letter
from nostrllm.provider.reply import RESULT_KEEP_S, Address, Letterbox, Outgoing
from nostrllm.provider.requests import Payee, Requests
from nostrllm.provider.shop import Shop, World
from nostrllm.provider.ticket import address_of
from nostrllm.purse import Plan
from nostrllm.wire.payment_request import Payload, encode_payload, parse_payload
from nostrllm.wire.token import Token, encode_token

#: Giving coins back writes rows for strangers: so many coins at once, so many times a minute.
RELEASE_COINS_MAX: Final = 64
RELEASES_PER_MINUTE: Final = 20

#: Between tries to store a payment.
PAUSES_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 60.0, 60.0)

RELEASED: Final = (
    "These coins were locked to me. I have signed them, so that a wallet can take them back:"
)
LOST: Final = (
    "I no longer have the question that this was for, because I do not keep questions. Send it "
    "again; it is paid from your account."
)
PENDING: Final = (
    "A payment for you is here, but its mint does not answer yet. I keep asking. [payment-pending]"
)

log = structlog.get_logger()


class Payments:
    """Takes payloads, and finishes those that a mint or a crash held up.

    `on_paid` is called with a question whose money has come.
    """

    def __init__(
        self,
        world: World,
        shop: Shop,
        accounts: Accounts,
        letterbox: Letterbox,
        requests: Requests,
        payee: Payee,
    ) -> None:
        self._world = world
        self._shop = shop
        self._accounts = accounts
        self._letterbox = letterbox
        self._requests = requests
        self._payee = payee
        self._running: set[str] = set()
        self._releases = Pace(RELEASES_PER_MINUTE)
        self.on_paid: Callable[[Letter], None] = lambda _letter: None
        accounts.aside = self._aside

    def runs(self, payment_id: str) -> bool:
        """Is this process working on the payment?"""
        return payment_id in self._running

    # coins that come

    async def take(self, letter: Letter) -> None:
        """Take the coins of a letter, or say why not. Raises RemoteError for one out of form.

        A fault of ours is no reason to refuse: it is tried again for some minutes, and then when a
        relay brings the letter anew.
        """
        payload = parse_payload(letter.text)
        self._running.add(letter.id)
        try:
            for pause_s in PAUSES_S:
                try:
                    await self._accept(letter, payload)
                except WorldError as error:
                    log.warning("payment_waits", payment=letter.id[:16], code=error.code)
                    await self._world.clock.sleep(pause_s)
                else:
                    return
        finally:
            self._running.discard(letter.id)

    async def _accept(self, letter: Letter, payload: Payload) -> None:
        request = await self._requests.of(payload.id)
        try:
            if request is None:
                raise RemoteError(
                    "this pays for no request of mine", code="payment-request-unknown"
                )
            await self._take(letter, payload, request)
        except RemoteError as error:
            await self._turn_away(letter, payload.token, request, error)

    async def _take(self, letter: Letter, payload: Payload, request: Row) -> None:
        if not letter.alone:
            raise RemoteError(
                "this message went to others too, so its coins are not safe to take",
                code="payment-token-invalid",
            )
        try:
            plan = await self._plan(letter.id, payload.token)
        except (OutcomeUnknown, MintRefused):
            heard = {"id": letter.id, "wrap": letter.wrap, "at": self._world.now_s()}
            kept = self._kept(letter, payload, "waiting")
            await self._world.store.commit(Write("heard_note", heard), kept)
            asker = address_of(request)
            await self._letterbox.send(await self._letterbox.seal(asker, [PENDING]))
            return
        kept = self._kept(letter, payload, "taken")
        await self._accounts.credit(_asked_by(letter, request), plan, kept)

    async def _plan(self, payment_id: str, token: Token) -> Plan:
        """The swap of coins that we would take. Raises RemoteError, OutcomeUnknown, MintRefused."""
        self._shop.check_fills(token.mint, token.unit)
        return await self._world.purse.plan_receive(
            payment_id, token, ladder=False, owner="", unlock=self._payee.unlock
        )

    def _kept(self, letter: Letter, payload: Payload, state: str) -> Write:
        return Write(
            "payment_insert",
            {
                "id": letter.id,
                "request": payload.id,
                "sender": letter.author,
                "dialect": letter.address.dialect,
                "payload": encode_payload(payload),
                "state": state,
                "at": self._world.now_s(),
            },
        )

    async def finish(self, payment_id: str) -> bool:
        """Take a stored payment whose mint did not answer. Raises WorldError: try again later."""
        self._running.add(payment_id)
        try:
            row = (await self._world.store.read("payment_get", id=payment_id))[0]
            request = await self._requests.of(row["request"])
            if row["state"] != "waiting" or request is None:
                return True
            token = parse_payload(row["payload"]).token
            sender = Address(row["dialect"], row["sender"], row["sender"])
            letter = Letter(row["id"], "", row["sender"], int(row["created_at"]), "", sender)
            try:
                plan = await self._plan(row["id"], token)
                taken = {"id": row["id"], "state": "taken", "was": "waiting"}
                moved = Write("payment_move", taken, rows=1)
                await self._accounts.credit(_asked_by(letter, request), plan, moved)
            except RemoteError as error:
                await self._turn_away(letter, token, request, error)
            return True
        finally:
            self._running.discard(payment_id)

    # coins that go back

    async def _turn_away(
        self, letter: Letter, token: Token, request: Row | None, error: RemoteError
    ) -> None:
        """Say that nothing was taken, and free what only we could spend."""
        log.info("payment_refused", payment=letter.id[:16], code=error.code)
        whom = [letter.address]
        if request is not None and error.code != "payment-token-spent":
            whom = _each_once(address_of(request), letter.address)
        said = f"{error.message}. Nothing was taken. [{error.code}]"
        now = self._world.now_s()
        always = [
            Write("heard_note", {"id": letter.id, "wrap": letter.wrap, "at": now}),
            Write("payment_end", {"id": letter.id, "state": "refused"}),
        ]
        free, claims = self._freed(letter.id, token)
        if free is not None:
            outgoing = await self._sealed(whom, [said, RELEASED, encode_token(free)])
            stored = self._letterbox.store(letter.id, outgoing)
            try:
                await self._world.store.commit(*claims, *always, *stored)
            except Conflict:
                free = None  # a coin of it pays for something here
        if free is None:
            outgoing = await self._sealed(whom, [said])
            await self._world.store.commit(*always, *self._letterbox.store(letter.id, outgoing))
        self._letterbox.wake()

    def _freed(self, payment_id: str, token: Token) -> tuple[Token | None, list[Write]]:
        """The coins that are locked to us, signed, and the claims by which nobody pays with them,
        whatever he calls their mint."""
        proofs = [proof for proof in token.proofs if self._payee.unlock(proof.secret) is not None]
        now = self._world.clock.monotonic()
        if not 0 < len(proofs) <= RELEASE_COINS_MAX or self._releases.count("", now) != "pass":
            return None, []
        signed = tuple(replace(one, witness=self._payee.key.unlock(one.secret)) for one in proofs)
        claims = [
            Write(
                "claim_release",
                {"mint": token.mint, "y": y_of(proof.secret), "owner": f"released:{payment_id}"},
                rows=1,
            )
            for proof in proofs
        ]
        return replace(token, proofs=signed, memo=None), claims

    async def _sealed(self, whom: Sequence[Address], texts: Sequence[str]) -> list[Outgoing]:
        return [
            one
            for address in whom
            for one in await self._letterbox.seal(address, texts, keep_s=RESULT_KEEP_S)
        ]

    # what is told when a swap has ended

    async def _aside(self, transfer: Row) -> Aside:
        """What a top-up's end means for the request that it paid, if it paid one."""
        rows = await self._world.store.read("payment_get", id=transfer["id"])
        if not rows:
            return Aside()
        request = await self._requests.of(rows[0]["request"])
        if transfer["state"] != "done" or request is None:
            return await self._refused(transfer, rows[0])
        name, asked = str(request["id"]), request["question"] != ""
        waits, first = self._requests.waits(name), request["state"] == "open"
        lost = asked and first and not waits
        state = "paid" if waits else "over"
        writes = [
            Write("payment_end", {"id": transfer["id"], "state": "done"}),
            Write("request_move", {"id": name, "state": state, "was": "open"}),
        ]
        texts = await self._sealed([address_of(request)], [LOST]) if lost else []
        return Aside(texts, writes, lambda: self._take_up(name))

    def _take_up(self, name: str) -> None:
        letter = self._requests.take(name)
        if letter is not None:
            self.on_paid(letter)

    async def _refused(self, transfer: Row, payment: Row) -> Aside:
        """The mint did not take the coins: the sender is told too, and can have them back."""
        asker = address_of(transfer)
        sender = Address(payment["dialect"], payment["sender"], payment["sender"])
        said = "The mint did not take your payment. [payment-token-invalid]"
        texts = await self._sealed(_each_once(asker, sender)[1:], [said])
        # The swap is over for good, so that these signatures cannot meet it.
        if await self._world.purse.state_of(transfer["id"]) == "REJECTED" and payment["payload"]:
            free, _ = self._freed(transfer["id"], parse_payload(payment["payload"]).token)
            if free is not None:
                whom = _each_once(asker, sender)
                texts += await self._sealed(whom, [RELEASED, encode_token(free)])
        return Aside(texts, [Write("payment_end", {"id": transfer["id"], "state": "refused"})])

    async def taken_up(self, question: str) -> None:
        """A question that was paid for ran, or its author knows why not."""
        over = {"id": self._payee.name(question), "state": "over", "was": "paid"}
        await self._world.store.commit(Write("request_move", over))

    # after a restart

    async def tell_lost(self) -> None:
        """Tell those whose question was paid for and forgotten before it ran."""
        for row in await self._world.store.read("requests_unanswered"):
            outgoing = await self._letterbox.seal(address_of(row), [LOST])
            over = {"id": row["id"], "state": "over", "was": "paid"}
            await self._world.store.commit(
                Write("request_move", over, rows=1), *self._letterbox.store(row["id"], outgoing)
            )
        self._letterbox.wake()


def _asked_by(letter: Letter, request: Row) -> Letter:
    """The letter as if whoever asked had written it: the money is his."""
    return replace(letter, author=request["author"], address=address_of(request))


def _each_once(asker: Address, sender: Address) -> list[Address]:
    """Both, or one where they are the same person."""
    return [asker] if asker.author == sender.author else [asker, sender]
