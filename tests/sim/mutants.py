"""Providers with one mistake each, of the sort that loses money: the simulation must find them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Final

from nostrllm.core import ledger
from nostrllm.core.order import Event, Failed, Generated, Order, Settlement
from nostrllm.errors import MintRefused, NostrllmError, OutcomeUnknown, RemoteError, StoreError
from nostrllm.ports import (
    Delta,
    Engine,
    Keyset,
    Load,
    Melt,
    MeltQuote,
    Mint,
    MintQuote,
    Mints,
    Row,
    Store,
    Task,
    Write,
)
from nostrllm.provider.admit import Admission, Letter, Wish
from nostrllm.provider.daemon import Daemon
from nostrllm.provider.locked import Locks, proofs_of
from nostrllm.provider.payments import Payments
from nostrllm.provider.recover import Recovery
from nostrllm.provider.settle import Settler
from nostrllm.provider.ticket import Job, Ticket, Written
from nostrllm.provider.tokens import LockedToken, Offered
from nostrllm.purse import Outcome, Plan, Purse, Then
from nostrllm.purse.operation import mark, nothing
from nostrllm.wire.payment_request import parse_payload
from nostrllm.wire.token import BlindedMessage, BlindSignature, Proof
from tests.sim.market import Parts

Change = Callable[[Write], Write | None]


class ChangedStore:
    """A store that changes some writes, or leaves them out."""

    def __init__(self, store: Store, change: Change) -> None:
        self._store = store
        self._change = change

    async def commit(self, *writes: Write) -> list[list[Row]]:
        """See ports.Store."""
        changed = [self._change(write) for write in writes]
        rows = iter(await self._store.commit(*(write for write in changed if write)))
        return [next(rows) if write else [] for write in changed]

    async def read(self, name: str, /, **values: Any) -> list[Row]:
        """See ports.Store."""
        return await self._store.read(name, **values)


def _without(*names: str) -> Parts:
    def leave_out(write: Write) -> Write | None:
        return None if write.name in names else write

    return Parts(store=lambda store: ChangedStore(store, leave_out))


class OpenChangePurse(Purse):
    """Change goes out and stays ours to spend."""

    def mark(
        self, proofs: Sequence[Proof], from_state: str, to_state: str, owner: str
    ) -> list[Write]:
        """Never `sent`."""
        if to_state == "sent":
            return mark(proofs, from_state, "free", "")
        return mark(proofs, from_state, to_state, owner)


class HastyPurse(Purse):
    """What the mint did not answer was not done."""

    async def run(self, op_id: str, then: Then = nothing) -> Outcome:
        """An outcome that is not known is told as a refusal."""
        outcome = await super().run(op_id, then)
        if outcome.state != "PREPARED":
            return outcome
        values = {name.name: getattr(outcome, name.name) for name in fields(Outcome)}
        refused = Outcome(**{**values, "state": "REJECTED", "code": "payment-mint-unreachable"})
        finish = {"id": op_id, "state": "REJECTED", "code": refused.code, "note": ""}
        write = Write("operation_finish", {**finish, "finished_at": 0.0}, rows=1)
        await self._till.store.commit(write, *then(refused))
        return refused


class ForgetfulMint:
    """A mint whose memory of signatures is not asked for."""

    def __init__(self, mint: Mint) -> None:
        self._mint = mint

    @property
    def url(self) -> str:
        """See ports.Mint."""
        return self._mint.url

    @property
    def skew_s(self) -> float | None:
        """See ports.Mint."""
        return self._mint.skew_s

    async def info(self) -> Mapping[str, Any]:
        """See ports.Mint."""
        return await self._mint.info()

    async def keysets(self, *, refresh: bool = False, wait: bool = False) -> Mapping[str, Keyset]:
        """See ports.Mint."""
        return await self._mint.keysets(refresh=refresh, wait=wait)

    async def swap(
        self, inputs: Sequence[Proof], outputs: Sequence[BlindedMessage]
    ) -> list[BlindSignature]:
        """See ports.Mint."""
        return await self._mint.swap(inputs, outputs)

    async def restore(
        self, outputs: Sequence[BlindedMessage]
    ) -> list[tuple[BlindedMessage, BlindSignature]]:
        """Nothing."""
        return []

    async def states(self, ys: Sequence[str]) -> list[str]:
        """See ports.Mint."""
        return await self._mint.states(ys)

    async def quote_mint(self, amount: int, unit: str) -> MintQuote:
        """See ports.Mint."""
        raise OutcomeUnknown

    async def mint_quote(self, quote: str) -> MintQuote:
        """See ports.Mint."""
        raise OutcomeUnknown

    async def mint(self, quote: str, outputs: Sequence[BlindedMessage]) -> list[BlindSignature]:
        """See ports.Mint."""
        raise MintRefused(20001, "the invoice is not paid")

    async def quote_melt(self, request: str, unit: str) -> MeltQuote:
        """See ports.Mint."""
        return await self._mint.quote_melt(request, unit)

    async def melt_quote(self, quote: str) -> Melt:
        """See ports.Mint."""
        return await self._mint.melt_quote(quote)

    async def melt(
        self, quote: str, inputs: Sequence[Proof], outputs: Sequence[BlindedMessage]
    ) -> Melt:
        """See ports.Mint."""
        return await self._mint.melt(quote, inputs, outputs)


class ForgetfulMints:
    """ports.Mints of them."""

    def __init__(self, mints: Mints) -> None:
        self._mints = mints

    def at(self, url: str) -> ForgetfulMint:
        """See ports.Mints."""
        return ForgetfulMint(self._mints.at(url))


class UncappedOrder(Order):
    """An order that costs what it costs."""

    @property
    def budget_msat(self) -> int:
        """All the money in the world."""
        return 1 << 60


class UncappedAdmission(Admission):
    """Admits orders without a ceiling."""

    async def admit(self, wish: Wish) -> Job:
        """See Admission; only the settlement is uncapped."""
        job = await super().admit(wish)
        order = job.ticket.order
        values = {name.name: getattr(order, name.name) for name in fields(Order)}
        return job.with_order(UncappedOrder(**values))


class UncappedDaemon(Daemon):
    """Sells without a ceiling."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._admission = UncappedAdmission(
            *(self._world, self._shop, self.announcer, self.conduct, self._locks),
            self.subscribers,
        )


class EagerRecovery(Recovery):
    """Finishes orders that are being worked on."""

    def _is_due(self, row_id: str) -> bool:
        return True


class EagerDaemon(Daemon):
    """Recovers what needs no recovery."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.recovery = EagerRecovery(
            self._world, self._counter, self._settler, self._accounts, self._payments
        )


class LazyRecovery(Recovery):
    """Leaves what a crash left."""

    async def sweep(self) -> int:
        """Nothing."""
        return 0


class LazyDaemon(Daemon):
    """Recovers nothing."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.recovery = LazyRecovery(
            self._world, self._counter, self._settler, self._accounts, self._payments
        )


class SenderDaemon(Daemon):
    """Credits what is paid for a request to the key that sent it."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        credit = self._accounts.credit

        async def to_sender(letter: Letter, plan: Plan, *more: Write) -> None:
            sender = str(more[0].values["sender"])
            await credit(replace(letter, author=sender), plan, *more)

        setattr(self._accounts, "credit", to_sender)  # noqa: B010


class CurtPayments(Payments):
    """Refuses what cannot be stored at once."""

    async def take(self, letter: Letter) -> None:
        """See Payments.take."""
        try:
            await self._accept(letter, parse_payload(letter.text))
        except StoreError:
            raise RemoteError("try again") from None


class CurtDaemon(Daemon):
    """Has such a part."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._payments.__class__ = CurtPayments


class RepeatingEngine:
    """Asks the model anew when it fails, without asking whether anybody pays twice."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def models(self) -> list[str]:
        """See ports.Engine."""
        return await self._engine.models()

    async def health(self) -> None:
        """See ports.Engine."""

    async def load(self) -> Load:
        """See ports.Engine."""
        return await self._engine.load()

    async def stream(
        self, body: Mapping[str, Any], task: Task = "chat"
    ) -> AsyncGenerator[Delta, None]:
        """Twice the same answer."""
        for _ in range(2):
            async for delta in self._engine.stream(body, task):
                yield delta


#: Settling is guarded by the order's state, the key of a posting, and the coins' state.
_SETTLED_ALWAYS: Final = """
UPDATE orders SET state = 'settled', cost_msat = :cost_msat, change_units = :change_units,
    credit_msat = :credit_msat, receipt = :receipt, code = :code, updated_at = :at
WHERE id = :id
"""
_POSTED_TWICE: Final = """
INSERT INTO entry (set_id, n, debit, credit, msat, at)
VALUES (:set_id, :n, :debit, :credit, :msat, :at)
ON CONFLICT (set_id, n) DO UPDATE SET msat = entry.msat + excluded.msat
"""
_STAYS_PAID: Final = """
UPDATE orders SET state = 'paid', cost_msat = :cost_msat, change_units = :change_units,
    credit_msat = :credit_msat, receipt = :receipt, code = :code, updated_at = :at
WHERE id = :id AND state = 'paid'
"""
_NEVER_KNOWN: Final = "SELECT wrap FROM heard WHERE id = :id AND id = ''"
_OVERDRAWN: Final = """
UPDATE account SET seq = seq + 1 WHERE pubkey = :pubkey AND balance_msat >= :msat
"""

_ADDED_TWICE: Final = """
INSERT INTO account (pubkey, balance_msat, seq) VALUES (:pubkey, 2 * :msat, 1)
ON CONFLICT (pubkey) DO UPDATE
SET balance_msat = account.balance_msat + excluded.balance_msat, seq = account.seq + 1
"""


# mistakes of the core, which take the place of a function of its own


def _charges_failures(order: Order, event: Event) -> Order:
    after = _HANDLE(order, event)
    if isinstance(event, Failed) and after.settlement is not None:
        return replace(after, settlement=_SPLIT(after, min(1_000, after.budget_msat)))
    return after


def _charges_nothing(order: Order, event: Event) -> Order:
    if isinstance(event, Generated) and not event.useful:
        event = Generated(1_000, useful=True)
    return _HANDLE(order, event)


def _keeps_the_rest(order: Order, cost_msat: int) -> Settlement:
    return replace(_SPLIT(order, cost_msat), credit_msat=0)


def _credits_another(
    order_id: str,
    pubkey: str,
    split: Settlement,
    unit_msat: int,
    fee_msat: int = 0,
    *,
    unit: str = "",
) -> ledger.Postings:
    return _SETTLED(order_id, "ab" * 32, split, unit_msat, fee_msat, unit=unit)


def _books_nothing(*_: object) -> ledger.Postings:
    return ()


_HANDLE: Final = Order.handle
_SPLIT: Final = Order.split
_SETTLED: Final = ledger.settled


class GenerousLocks(Locks):
    """Releases what was refused and does not remember it."""

    async def give_back(self, offered: Offered) -> list[str] | None:
        """Nothing is taken for the message, so the coins may come again."""
        try:
            token = await self.judge(offered)
        except NostrllmError:
            return None
        return self.release(token.proofs)


class ForgetfulLocks(Locks):
    """Takes tokens without a claim on their coins."""

    def _taken(self, token: LockedToken, state: str) -> list[Write]:
        return [write for write in super()._taken(token, state) if write.name != "claim_insert"]


def _daemon_with(locks: type[Locks]) -> type[Daemon]:
    class Changed(Daemon):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self._locks.__class__ = locks

    return Changed


class GivingSettler(Settler):
    """Hands out the release of tokens that it charges for."""

    async def _ending(self, ticket: Ticket, written: Written) -> Any:
        ending, expected = await super()._ending(ticket, written)
        if ticket.order.funding == "locked":
            row = await self.locks.stored(ticket.id)
            ending = replace(ending, release=tuple(self.locks.release(proofs_of(row))))
        return ending, expected


class GivingDaemon(Daemon):
    """Charges, and gives back."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._settler.__class__ = GivingSettler


_LOCKED_STAY: Final = "UPDATE locked SET batch = batch WHERE batch = :batch AND state = 'none'"
_UNTOLD: Final = "UPDATE locked SET state = 'settled' WHERE id = :id AND state = 'settling'"
_SIGNED_AND_CREDITED: Final = """
UPDATE locked SET credit_units = change_units WHERE id = :id AND state = 'due' AND credit_units = 0
"""

MUTANTS: Final[dict[str, Parts]] = {
    "commit not safe before the mint is asked": Parts(late_units=2),
    "coins not claimed": _without("claim_insert"),
    "settled twice": Parts(
        daemon=EagerDaemon, sql={"order_settled": _SETTLED_ALWAYS, "entry_insert": _POSTED_TWICE}
    ),
    "change given and kept": Parts(purse=OpenChangePurse),
    "paid back after it was settled": Parts(sql={"order_settled": _STAYS_PAID}),
    "no budget cap": Parts(daemon=UncappedDaemon),
    "remainder not credited": _without("account_add"),
    "duplicates accepted": Parts(sql={"known_wrap": _NEVER_KNOWN}),
    "reply not stored with the money": _without("outbox_insert"),
    "unknown taken for no": Parts(purse=HastyPurse),
    "signatures not restored": Parts(mints=ForgetfulMints),
    "no recovery": Parts(daemon=LazyDaemon),
    "credited to whoever paid": Parts(daemon=SenderDaemon),
    "payment refused for a fault of ours": Parts(daemon=CurtDaemon),
    "hold not taken from the account": Parts(sql={"account_take": _OVERDRAWN}),
    "model asked twice": Parts(engine=RepeatingEngine),
    "a failure is charged": Parts(patch=(Order, "handle", _charges_failures)),
    "an empty answer is charged": Parts(patch=(Order, "handle", _charges_nothing)),
    "the rest is kept": Parts(patch=(Order, "split", _keeps_the_rest)),
    "credited to another": Parts(patch=(ledger, "settled", _credits_another)),
    "spent change stays in the books": Parts(patch=(ledger, "change_spent", _books_nothing)),
    "a hold that is not booked": Parts(patch=(ledger, "account_held", _books_nothing)),
    "balance added twice": Parts(sql={"account_add": _ADDED_TWICE}),
    "released coins taken again": Parts(daemon=_daemon_with(GenerousLocks)),
    "locked coins not claimed": Parts(daemon=_daemon_with(ForgetfulLocks)),
    "charged and released": Parts(daemon=GivingDaemon),
    "a refused swap's tokens stay in it": Parts(sql={"locked_back": _LOCKED_STAY}),
    "signatures kept from the client": Parts(sql={"locked_settled": _UNTOLD}),
    "change signed and credited": Parts(sql={"locked_unsigned": _SIGNED_AND_CREDITED}),
    "swapped while it is in a swap": _without("locked_begin"),
}
