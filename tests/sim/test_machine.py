"""Orders, ledger and accounts under every history that hypothesis can think of.

The rules here do what provider and client do, with the product's own order, ledger, locks and
choice of coins, and coins of a mint that passes the real one's contract. After every step all money
is where the books say, each order was settled once, and none cost more than its ceiling.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Final
from unittest import mock

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from nostrllm.core import coins, ledger
from nostrllm.core.lock import Lock, Wanted, common_lock, locked_secret
from nostrllm.core.order import (
    Failed,
    Generated,
    Order,
    OrderError,
    Paid,
    PaymentRefused,
    Settlement,
    Started,
)
from nostrllm.crypto import bdhke
from nostrllm.errors import MintRefused
from nostrllm.wire.token import Proof
from tests.sim.group import TOY, drawn
from tests.sim.holder import Holder, Made, signed_by
from tests.sim.mint import URL, SimMint

SAT: Final = 1_000
NOW: Final = 1_700_000_000
LOCK_S: Final = 7_200
PLACE: Final = ledger.coins(URL, "sat")
LOCKED: Final = ledger.locked(URL, "sat")
KEY: Final = bytes([7]) * 32
NOBODY: Final = "a" * 64

amounts = st.integers(1, 300)


@dataclass
class Sale:
    """One order, its coins on both sides, and what the provider wrote down of it."""

    id: str
    order: Order
    token: list[Proof] = field(default_factory=list)
    held: list[Proof] = field(default_factory=list)
    change: list[Proof] = field(default_factory=list)
    ladder: Made = field(default_factory=list)
    redeemed: bool = False

    @property
    def is_open(self) -> bool:
        """Is its end still to come?"""
        return self.order.settlement is None and self.order.state != "refused"


class Market(RuleBasedStateMachine):
    """A client, a provider and a mint."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self._stack.enter_context(drawn(TOY))
        self.now = float(NOW)
        self.sales: dict[str, Sale] = {}
        self.sets: dict[str, ledger.Postings] = {}
        self.claims: dict[str, str] = {}
        self.accounts: Counter[str] = Counter()
        self.lost = 0
        self.refusals: Counter[int] = Counter()

    def teardown(self) -> None:
        """The mint refused nothing but what was spent or locked; give the curve back."""
        self._stack.close()
        assert self.refusals.keys() <= {11001, 11000}

    @initialize(fee=st.sampled_from((0, 100, 1_000)), seed=st.integers(0, 99))
    def opens(self, fee: int, seed: int) -> None:
        """The mint begins."""
        rng = random.Random(seed)
        self.mint = SimMint(fee, TOY, lambda: self.now)
        self.client, self.provider = Holder(self.mint, rng), Holder(self.mint, rng)
        self.client.coins = list(self.mint.issue(coins.split(2_000), rng))
        self.put_in(100)

    # helpers of the rules

    def book(self, name: str, lines: ledger.Postings) -> None:
        """A set is written once, or somebody was paid twice."""
        assert name not in self.sets, name
        if lines:
            self.sets[name] = lines

    def claim(self, proofs: list[Proof], owner: str) -> bool:
        """Take coins in for one purpose for ever; False if one was taken before."""
        ys = [bdhke.y_of(proof.secret) for proof in proofs]
        if any(y in self.claims for y in ys):
            return False
        self.claims.update(dict.fromkeys(ys, owner))
        return True

    def some(self, data: st.DataObject, **wanted: Any) -> Sale | None:
        """An order of these properties, if there is one."""
        found = [
            sale
            for sale in self.sales.values()
            if all(getattr(sale.order, name) in values for name, values in wanted.items())
        ]
        return data.draw(st.sampled_from(found)) if found else None

    def new(self, order: Order, **fields: Any) -> Sale:
        """An order that is written down."""
        sale = Sale(f"order-{len(self.sales)}", order, **fields)
        self.sales[sale.id] = sale
        return sale

    # paying

    @rule(data=st.data(), amount=amounts, wants=st.booleans(), share=st.integers(1, 4))
    def orders_by_token(self, data: st.DataObject, amount: int, wants: bool, share: int) -> None:
        """With a token; sometimes with one that pays for another order already."""
        again = self.some(data, funding=("token",)) if share == 1 else None
        token = again.token if again else self.client.pay(_plain(amount))
        if token is None:
            return
        worth = sum(proof.amount for proof in token) * SAT
        fee = self.mint.fee(len(token)) * SAT
        if worth <= fee:
            self.client.coins += [] if again else token
            return
        ceiling = worth - (worth - fee) * (share - 1) // 8
        order = Order("token", ceiling, fee, wants_ecash=wants)
        if self.claim(token, f"order-{len(self.sales)}"):
            assert again is None
            self.new(order, token=token)
        else:
            assert again is not None

    @rule(data=st.data())
    def the_client_spends_it_first(self, data: st.DataObject) -> None:
        """A token that is on its way is spent elsewhere."""
        sale = self.some(data, funding=("token",), state=("paying",))
        if sale is not None and self.mint.unspent(sale.token):
            self.client.take(sale.token)

    @rule(data=st.data())
    def the_mint_answers(self, data: st.DataObject) -> None:
        """It swaps the token into a ladder, or refuses it."""
        sale = self.some(data, state=("paying",))
        if sale is None:
            return
        net = sum(proof.amount for proof in sale.token) - self.mint.fee(len(sale.token))
        try:
            made = self.provider.swap(sale.token, [(n, "") for n in coins.ladder(net)])
        except MintRefused as error:
            self.refusals[error.mint_code] += 1
            sale.order = sale.order.handle(PaymentRefused(error.code))
            return
        sale.held = made
        sale.order = sale.order.handle(Paid(net * SAT))
        self.book(f"paid:{sale.id}", ledger.token_paid(sale.id, PLACE, net * SAT, SAT))

    @rule(msat=st.integers(1, 200_000))
    def orders_from_account(self, msat: int) -> None:
        """As far as the balance goes."""
        hold = min(msat, self.accounts[NOBODY])
        if not hold:
            return
        sale = self.new(Order("account", msat, wants_ecash=False, state="paid", net_msat=hold))
        self.accounts[NOBODY] -= hold
        self.book(f"held:{sale.id}", ledger.account_held(sale.id, NOBODY, hold))

    @rule(amount=amounts, wants=st.booleans())
    def orders_by_lock(self, amount: int, wants: bool) -> None:
        """With coins locked to the provider, accepted offline, and a ladder for the change."""
        lock = Lock(bdhke.public_key_of(KEY), int(self.now) + LOCK_S, "")
        wanted = []
        for number, piece in enumerate(coins.split(amount)):
            refund = bdhke.public_key_of(_refund_key(len(self.sales), number))
            nonce = self.client.rng.randbytes(32).hex()
            wanted.append((piece, locked_secret(nonce, replace(lock, refund=refund))))
        fee = self.mint.fee(len(wanted))
        token = self.client.pay(wanted) if amount > fee else None
        if token is None:
            return
        bounds = Wanted(lock.key, int(self.now) + 3_600, int(self.now) + 86_400)
        assert common_lock([proof.secret for proof in token], bounds) == lock.locktime
        ladder = self.client.outputs([(n, "") for n in coins.ladder(amount - fee)])
        order = Order(
            "locked",
            amount * SAT,
            fee * SAT,
            wants_ecash=wants,
            rungs=tuple(message.amount for message, _, _ in ladder),
            state="paid",
            net_msat=(amount - fee) * SAT,
        )
        assert self.claim(token, f"order-{len(self.sales)}")
        sale = self.new(order, token=token, ladder=ladder)
        self.book(f"locked:{sale.id}", ledger.lock_accepted(sale.id, LOCKED, amount * SAT))

    # working

    @rule(data=st.data())
    def starts(self, data: st.DataObject) -> None:
        """The model is asked."""
        sale = self.some(data, state=("paid",))
        if sale is not None:
            sale.order = sale.order.handle(Started())

    @rule(data=st.data(), cost=st.integers(0, 500_000), useful=st.booleans())
    def answers(self, data: st.DataObject, cost: int, useful: bool) -> None:
        """It answers, for whatever it cost."""
        sale = self.some(data, state=("paid", "running"))
        if sale is None:
            return
        if sale.order.state == "paid":
            sale.order = sale.order.handle(Started())
        self.settle(sale, Generated(cost, useful))

    @rule(data=st.data())
    def fails(self, data: st.DataObject) -> None:
        """It does not, or we never got to it."""
        sale = self.some(data, state=("paid", "running"))
        if sale is not None:
            self.settle(sale, Failed("generation-failed"))

    @rule()
    def crashes(self) -> None:
        """What ran is paid back by the next life, which knows of no running."""
        for sale in self.sales.values():
            if sale.order.state == "running":
                sale.order = replace(sale.order, state="paid")
                self.settle(sale, Failed("generation-failed"))

    @rule(data=st.data(), cost=st.integers(0, 500_000))
    def is_settled_again(self, data: st.DataObject, cost: int) -> None:
        """A duplicate, a late engine: nothing ends twice."""
        sale = self.some(data, state=("settled", "refused"))
        if sale is None:
            return
        for event in (Generated(cost, True), Failed("deadline"), Paid(cost), Started()):
            try:
                sale.order.handle(event)
            except OrderError:
                continue
            raise AssertionError(event)

    def settle(self, sale: Sale, event: Generated | Failed) -> None:
        """Book the end, and give the change out."""
        sale.order = order = sale.order.handle(event)
        split = order.settlement
        assert split is not None
        if split.released:
            back = ledger.lock_released(sale.id, LOCKED, order.net_msat + order.fee_msat)
            self.book(f"settled:{sale.id}", back)
            self.client.take(signed_by(KEY, sale.token))
            return
        fee = order.fee_msat if order.funding == "locked" else 0
        lines = ledger.settled(sale.id, NOBODY, split, order.unit_msat, fee)
        self.book(f"settled:{sale.id}", lines)
        self.accounts[NOBODY] += split.credit_msat
        if order.funding == "token":
            change = coins.exact(sale.held, split.change_units)
            assert change is not None
            sale.change = change
            self.provider.coins += [coin for coin in sale.held if coin not in change]
            sale.held = []

    # locked tokens, afterwards

    @rule()
    def redeems(self) -> None:
        """All that is settled goes in one swap, with the clients' change among the outputs."""
        due = [sale for sale in self.sales.values() if _is_due(sale)]
        lost = [sale for sale in due if not self.mint.unspent(sale.token)]
        for sale in lost:
            self.write_off(sale)
        due = [sale for sale in due if sale not in lost]
        if due:
            self.redeem(due)

    def redeem(self, due: list[Sale]) -> None:
        """One swap for these."""
        inputs = [proof for sale in due for proof in signed_by(KEY, sale.token)]
        given: list[tuple[Sale, Made]] = [(sale, _rungs(sale)) for sale in due]
        fee = self.mint.fee(len(inputs))
        rest = sum(p.amount for p in inputs) - fee
        rest -= sum(message.amount for _, made in given for message, _, _ in made)
        own = self.provider.outputs([(n, "") for n in coins.split(rest)])
        theirs = [message for _, made in given for message, _, _ in made]
        signed = self.mint.swap(inputs, [*(message for message, _, _ in own), *theirs])
        self.provider.coins += self.provider.unblind(own, signed[: len(own)])
        signed = signed[len(own) :]
        for sale, made in given:
            self.client.coins += self.client.unblind(made, signed[: len(made)])
            signed = signed[len(made) :]
            sale.redeemed = True
        each = [
            ledger.Redeemed(sale.id, _worth(sale), sum(m.amount for m, _, _ in made) * SAT)
            for sale, made in given
        ]
        name = f"redeemed:{due[0].id}"
        self.book(name, ledger.redeemed(LOCKED, PLACE, each, fee * SAT))

    def write_off(self, sale: Sale) -> None:
        """The client had it back after the locktime: it is lost, and its change not given."""
        split = sale.order.settlement
        assert split is not None
        change = split.change_units * SAT
        self.book(f"lost:{sale.id}", ledger.lock_lost(sale.id, LOCKED, _worth(sale), change))
        self.lost += _worth(sale) - change
        sale.redeemed = True

    @rule(seconds=st.sampled_from((60, LOCK_S + 1)))
    def time_passes(self, seconds: int) -> None:
        """Perhaps beyond a locktime."""
        self.now += seconds

    @rule(data=st.data())
    def the_client_refunds_himself(self, data: st.DataObject) -> None:
        """With his refund key, which opens nothing before the locktime."""
        sale = self.some(data, funding=("locked",), state=("settled",))
        if sale is None or not _is_due(sale) or not self.mint.unspent(sale.token):
            return
        number = int(sale.id.partition("-")[2])
        opened = [
            signed_by(_refund_key(number, n), [proof])[0] for n, proof in enumerate(sale.token)
        ]
        before = self.client.units
        try:
            self.client.take(opened)
        except MintRefused as error:
            self.refusals[error.mint_code] += 1
            assert self.client.units == before
        else:
            assert self.now > NOW + LOCK_S

    # accounts

    @rule(amount=amounts)
    def tops_up(self, amount: int) -> None:
        """A token into the account."""
        self.put_in(amount)

    def put_in(self, amount: int) -> None:
        """See tops_up."""
        token = self.client.pay(_plain(amount))
        if token is None:
            return
        name = f"topup-{len(self.claims)}"
        assert self.claim(token, name)
        net = self.provider.take(token)
        if not net:
            self.client.coins += token
            return
        self.accounts[NOBODY] += net * SAT
        self.book(f"topup:{name}", ledger.topped_up(NOBODY, PLACE, net * SAT))

    @precondition(lambda self: self.accounts[NOBODY] >= 3 * SAT)
    @rule()
    def takes_the_balance(self) -> None:
        """In whole coins, which a swap makes at the client's cost."""
        held = self.accounts[NOBODY] // SAT * SAT
        units = held // SAT - 2
        before = self.provider.units
        paid = self.provider.pay(_plain(units))
        if paid is None:
            return
        fee = (before - self.provider.units - units) * SAT
        name = f"refund-{len(self.sets)}"
        self.book(f"held:{name}", ledger.account_held(name, NOBODY, held))
        lines = ledger.refunded(name, NOBODY, PLACE, held, units * SAT, fee)
        self.book(f"refund:{name}", lines)
        self.accounts[NOBODY] -= min(held, units * SAT + fee)
        self.book(f"spent:{name}", ledger.change_spent(name, PLACE, units * SAT))
        self.client.take(paid)

    @rule(data=st.data())
    def the_change_is_taken(self, data: st.DataObject) -> None:
        """And seen to be spent."""
        sale = self.some(data, funding=("token",), state=("settled",))
        if sale is not None and sale.change:
            worth = sum(proof.amount for proof in sale.change) * SAT
            if self.client.take(sale.change):
                self.book(f"spent:{sale.id}", ledger.change_spent(sale.id, PLACE, worth))
                sale.change = []

    # what always holds

    @invariant()
    def all_money_is_somewhere(self) -> None:
        """What the mint owes is in somebody's hands, coin by coin."""
        if not hasattr(self, "mint"):
            return
        theirs = [*self.client.coins, *self.provider.coins]
        for sale in self.sales.values():
            theirs += [*sale.held, *sale.change]
            if self.mint.unspent(sale.token):
                theirs += sale.token
        named = {bdhke.y_of(proof.secret): proof.amount for proof in theirs}
        unspent = {y: amount for y, amount in named.items() if y not in self.mint.spent}
        assert unspent == named
        assert sum(named.values()) == self.mint.owed

    @invariant()
    def the_books_say_where(self) -> None:
        """Each account of the ledger is what it stands for."""
        balances: Counter[str] = Counter()
        for lines in self.sets.values():
            assert sum(line.amount for line in lines) == 0
            for line in lines:
                balances[line.account] += line.amount
        ours = self.provider.units if hasattr(self, "provider") else 0
        ours += sum(proof.amount for sale in self.sales.values() for proof in sale.held)
        ours += sum(proof.amount for sale in self.sales.values() for proof in sale.change)
        assert balances[PLACE] == ours * SAT
        waiting = [sale for sale in self.sales.values() if _is_locked(sale)]
        assert balances[LOCKED] == sum(_worth(sale) for sale in waiting)
        assert balances[ledger.account(NOBODY)] == -self.accounts[NOBODY] <= 0
        assert balances["lost"] == self.lost
        ends = [sale.order.settlement for sale in self.sales.values()]
        assert balances["income"] == -sum(split.cost_msat for split in ends if split is not None)

    @invariant()
    def every_order_adds_up(self) -> None:
        """Cost, change and credit are what was paid; within the ceiling; booked once."""
        for sale in self.sales.values():
            order, split = sale.order, sale.order.settlement
            assert (f"settled:{sale.id}" in self.sets) == (split is not None)
            if split is None or split.released:
                assert split is None or not split.cost_msat
                continue
            assert split.cost_msat + split.change_units * SAT + split.credit_msat == order.net_msat
            assert 0 <= split.cost_msat <= max(0, order.ceiling_msat - order.fee_msat)
            assert min(split.change_units, split.credit_msat) >= 0
            if order.code is not None:
                assert not split.cost_msat


def _plain(amount: int) -> list[tuple[int, str]]:
    return [(piece, "") for piece in coins.split(amount)]


def _refund_key(sale: int, number: int) -> bytes:
    return (sale * 100 + number + 1).to_bytes(32, "big")


def _worth(sale: Sale) -> int:
    return sum(proof.amount for proof in sale.token) * SAT


def _is_due(sale: Sale) -> bool:
    """Is it a locked token that was earned, at least in part, and is not swapped yet?"""
    split = sale.order.settlement
    locked = sale.order.funding == "locked" and not sale.redeemed
    return locked and split is not None and not split.released


def _is_locked(sale: Sale) -> bool:
    """Is it in the books as a locked token?"""
    return sale.order.funding == "locked" and (sale.is_open or _is_due(sale))


def _rungs(sale: Sale) -> Made:
    """The client's outputs that make his change."""
    split = sale.order.settlement
    assert split is not None
    assert sale.order.rungs is not None
    chosen = coins.subset(sale.order.rungs, split.change_units)
    assert chosen is not None
    return [sale.ladder[index] for index in chosen]


TestMarket = Market.TestCase
TestMarket.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)


def _handles_anything(order: Order, event: Any) -> Order:
    return order if order.settlement is not None else _HANDLE(order, event)


def _keeps_the_rest(order: Order, cost_msat: int) -> Settlement:
    return replace(_SPLIT(order, cost_msat), credit_msat=0)


def _releases_what_it_keeps(order: Order, cost_msat: int) -> Settlement:
    return replace(_SPLIT(order, cost_msat), released=order.funding == "locked")


_HANDLE: Final = Order.handle
_SPLIT: Final = Order.split


def _forgets_the_fee(
    place: str, to: str, orders: Sequence[ledger.Redeemed], fee_msat: int
) -> ledger.Postings:
    return _REDEEMED(place, to, orders, fee_msat and 0)


_REDEEMED: Final = ledger.redeemed

#: Mistakes of the core, one each, that the machine above must not survive.
MISTAKES: Final[dict[str, tuple[object, str, object]]] = {
    "no ceiling": (Order, "budget_msat", 1 << 60),
    "settled again": (Order, "handle", _handles_anything),
    "the rest is kept": (Order, "split", _keeps_the_rest),
    "released and earned": (Order, "split", _releases_what_it_keeps),
    "fee forgotten": (ledger, "redeemed", _forgets_the_fee),
    "change that is not covered": (coins, "most", mock.Mock(return_value=1_000)),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_the_machine_finds_a_mistake(name: str) -> None:
    found = settings(TestMarket.settings, max_examples=400, phases=[Phase.generate], database=None)
    with mock.patch.object(*MISTAKES[name]), pytest.raises(Exception):  # noqa: B017, PT011
        run_state_machine_as_test(Market, settings=found)
