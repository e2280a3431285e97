"""Everything that can refuse an order, before anything is taken: one straight list of checks.

What comes out is a job whose every price, limit and coin is known. A refusal here leaves no trace:
the same coins may come again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from nostrllm.core import coins
from nostrllm.core.money import (
    UNIT_MSAT,
    affordable_tokens,
    cost_msat,
    prompt_estimate,
    scaled,
    unit_msat,
)
from nostrllm.core.order import Order
from nostrllm.core.pays import Coin
from nostrllm.core.plan import FULL, Subscription
from nostrllm.errors import RemoteError
from nostrllm.ports import Write
from nostrllm.provider.announce import Announcer
from nostrllm.provider.conduct import Conduct
from nostrllm.provider.form import check_form
from nostrllm.provider.locked import Locks
from nostrllm.provider.means import Means, any_means, granted_means, own_means
from nostrllm.provider.reply import Address
from nostrllm.provider.shop import Shop, World
from nostrllm.provider.subscribers import Subscribers
from nostrllm.provider.ticket import Draw, Job, Ticket
from nostrllm.provider.tokens import LockedToken, Offered
from nostrllm.purse import Plan
from nostrllm.purse.receive import Unlock
from nostrllm.wire.announcement import ModelOffer
from nostrllm.wire.order import (
    AccountPayment,
    AnyRequest,
    LockedPayment,
    NewOutputs,
    Usage,
)
from nostrllm.wire.order import Order as ClientOrder
from nostrllm.wire.token import BlindedMessage, Token, parse_token

#: An order that cannot pay for this many tokens of answer is not worth its prompt.
ANSWER_TOKENS_MIN: Final = 16

#: Change has about so many coins; what receiving it costs depends on that.
CHANGE_COINS: Final = 8


@dataclass(frozen=True, slots=True)
class Letter:
    """A private message that arrived, its author proved by the seal.

    `id` is the rumor's, `wrap` the id of the event that carried it. `alone` is False when the
    message went to others too. `work`: zero bits of the wrap (NIP-13). `heard_at`: when
    it came, on the monotonic clock.
    """

    id: str
    wrap: str
    author: str
    created_at: int
    text: str
    address: Address
    alone: bool = True
    heard_at: float = 0.0
    work: int = 0

    def to(self, address: Address) -> Letter:
        """The letter with another place to answer to."""
        return replace(self, address=address)


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for, whoever asked and in whatever dialect.

    `token` pays, None: the author's account; with `outputs` it is one that is locked to us.
    """

    letter: Letter
    address: Address
    offer: ModelOffer
    price_id: str
    request: AnyRequest
    ceiling_msat: int | None
    token: str | None
    wants_ecash: bool
    commitment: str
    deadline: int
    end_by: int | None = None
    chunk_s: float | None = None
    outputs: tuple[BlindedMessage, ...] | None = None
    payer: str | None = None
    carry_on: bool = False


@dataclass(frozen=True, slots=True)
class _Funds:
    """What pays for an order: a swap to run first, a locked token, or neither: an account.

    `name` stands for it in the signed acceptance.
    """

    order: Order
    name: str
    mint: str = ""
    unit: str = ""
    plan: Plan | None = None
    lock: LockedToken | None = None
    draw: Draw | None = None

    @property
    def budget_msat(self) -> int:
        """The most that the work may cost, also while a swap is still to come."""
        order = self.order
        return order.budget_msat if self.plan is None else order.ceiling_msat - order.fee_msat


class Admission:
    """Turns wishes into jobs, or refuses them with RemoteError or, for the world, WorldError."""

    def __init__(
        self,
        world: World,
        shop: Shop,
        announcer: Announcer,
        conduct: Conduct,
        locks: Locks,
        subscribers: Subscribers,
    ) -> None:
        self._world = world
        self._shop = shop
        self._announcer = announcer
        self._conduct = conduct
        self._locks = locks
        self._subscribers = subscribers

    def wish(self, letter: Letter, order: ClientOrder) -> Wish:
        """What an order of our client asks for."""
        if order.deadline <= self._world.now_s():
            raise RemoteError("the order's deadline has passed", code="deadline")
        payment = order.payment
        return Wish(
            letter=letter,
            address=letter.address,
            offer=self._announcer.promised(order.price, order.model),
            price_id=order.price,
            request=order.body,
            ceiling_msat=order.ceiling_msat,
            token=None if isinstance(payment, AccountPayment) else payment.token,
            payer=payment.of if isinstance(payment, AccountPayment) else None,
            wants_ecash=order.change == "ecash",
            commitment=order.c,
            deadline=min(order.deadline, self._world.now_s() + 3_600),
            end_by=order.end_by,
            chunk_s=None if order.chunk_ms is None else order.chunk_ms / 1_000,
            outputs=outputs_in(payment) if isinstance(payment, LockedPayment) else None,
            carry_on=order.carry_on is True,
        )

    async def admit(self, wish: Wish) -> Job:
        """The job, with its swap planned or its hold sized; nothing is committed yet."""
        standing = await self._conduct.check(wish.letter.author)
        check_form(wish.request, wish.offer, self._shop.limits.request_bytes_max)
        prompt = self._prompt_tokens(wish)
        subscription = await self._subscribers.current(wish.letter.author)
        if subscription is not None and subscription.plan.percent != FULL:
            price = scaled(wish.offer.price, subscription.plan.percent)
            wish = replace(wish, offer=wish.offer.model_copy(update={"price": price}))
        if wish.token is None:
            funds = await self._account_funds(wish, prompt, subscription)
        else:
            token = parse_token(wish.token)
            coin = self._coin(wish, token)
            wish = replace(wish, offer=coin.offer(wish.offer))
            trusted = standing == "allowed"
            funds = await self._funds(wish, (token, coin), prompt, trusted=trusted)
        self._check_budget(wish, prompt, funds.budget_msat, funds.order.fee_msat)
        ticket = Ticket(
            id=wish.letter.id,
            wrap=wish.letter.wrap,
            address=wish.address,
            model=wish.offer.id,
            price_id=wish.price_id,
            order=funds.order,
            mint=funds.mint,
            unit=funds.unit,
            commitment=wish.commitment,
            deadline=wish.deadline,
            draw=funds.draw,
        )
        return Job(
            ticket=ticket,
            offer=wish.offer,
            request=wish.request,
            body=self._body(wish, prompt, funds.budget_msat),
            plan=funds.plan,
            lock=funds.lock,
            payment=funds.name,
            prompt_tokens=prompt,
            end_by=wish.end_by,
            chunk_s=wish.chunk_s if standing == "allowed" else None,
            said_at=wish.letter.created_at,
            priority=subscription.plan.priority if subscription else 0,
            known=funds.order.funding == "account"
            or await self._conduct.has_paid(wish.letter.author),
            beside=_priced_by(subscription),
            carry_on=wish.carry_on,
        )

    def _coin(self, wish: Wish, token: Token) -> Coin:
        """What each coin of the token counts for, if we would take it. Raises RemoteError."""
        coin = self._announcer.taken(wish.price_id, token.mint, token.unit)
        self._check_worth(token.amount * coin.msat)
        if not wish.wants_ecash and (coin.unit not in UNIT_MSAT or coin.percent > FULL):
            raise RemoteError(
                "the change of these coins comes back as coins and fills no account",
                code="payment-mint-unaccepted",
            )
        return coin

    async def _funds(
        self, wish: Wish, paying: tuple[Token, Coin], prompt: int, *, trusted: bool
    ) -> _Funds:
        token, coin = paying
        if not self._locks.answers(token.mint):
            message = "this mint does not answer at the moment; take another one, or try again soon"
            raise RemoteError(message, code="payment-mint-unreachable")
        self._check_budget(wish, prompt, token.amount * coin.msat, fee_msat=0)
        name = coins.digest(token.proofs)
        unlock = None
        if wish.outputs is not None:
            lock = await self._locks.judge(offered(wish, token))
            # Nothing is promised at a rate on coins that are not ours yet.
            if (
                coin.unit in UNIT_MSAT
                and trusted
                and wish.wants_ecash
                and await self._locks.is_believed(lock)
            ):
                order = self._locked_order(wish, lock, await self._change_fee(lock.mint, lock.unit))
                return _Funds(order, name, lock.mint, lock.unit, lock=lock)
            unlock = self._locks.unlock
        plan = await self.plan(wish.letter.id, token, ladder=True, unlock=unlock)
        order = self._token_order(
            wish, plan, coin.msat, await self._change_fee(plan.mint, plan.unit)
        )
        return _Funds(order, name, plan.mint, plan.unit, plan=plan)

    @staticmethod
    def _check_budget(wish: Wish, prompt: int, budget_msat: int, fee_msat: int) -> None:
        """Refuse what cannot pay for its prompt and a few words. Raises RemoteError."""
        answer = 0 if wish.request.task == "embedding" else ANSWER_TOKENS_MIN
        least = cost_msat(wish.offer.price, Usage(prompt=prompt, completion=answer))
        if budget_msat < least:
            raise RemoteError(
                f"this would cost at least {least + fee_msat} msat, fees included; "
                f"{budget_msat + fee_msat} are offered",
                code="account-insufficient" if wish.token is None else "payment-amount-low",
            )

    def token(self, text: str) -> Token:
        """A token that would fill an account: its mint, unit and worth are within what the shop
        accepts for that. Raises RemoteError."""
        token = parse_token(text)
        self._shop.check_fills(token.mint, token.unit)
        self._check_worth(token.amount * unit_msat(token.unit))
        return token

    def _check_worth(self, worth_msat: int) -> None:
        if worth_msat > self._shop.payment_msat_max:
            raise RemoteError(
                f"a token may be worth {self._shop.payment_msat_max // 1_000} sat at most",
                code="payment-amount-high",
            )

    def offered(self, letter: Letter, payment: LockedPayment) -> Offered:
        """The locked token of a letter that is refused. Raises RemoteError."""
        token = parse_token(payment.token)
        if token.mint not in self._shop.mints:
            raise RemoteError("not a mint of ours", code="payment-mint-unaccepted")
        return Offered(letter.id, letter.author, token, (), None)

    async def plan(
        self, op_id: str, token: Token, *, ladder: bool, unlock: Unlock | None = None
    ) -> Plan:
        """The swap of a token for an order (kept apart as a ladder) or into an account.

        `unlock` signs for one that is locked to us.
        """
        return await self._world.purse.plan_receive(
            op_id,
            token,
            ladder=ladder,
            owner=op_id if ladder else "",
            proof_state="held" if ladder else "free",
            unlock=unlock,
        )

    async def _change_fee(self, mint: str, unit: str) -> int:
        """What receiving our change will cost the client, in units."""
        keysets = await self._world.mints.at(mint).keysets()
        active = [k.fee_ppk for k in keysets.values() if k.active and k.unit == unit]
        return -(-CHANGE_COINS * min(active, default=0) // 1_000)

    def _locked_order(self, wish: Wish, lock: LockedToken, change_fee: int) -> Order:
        coin = unit_msat(lock.unit)
        return Order(
            funding="locked",
            ceiling_msat=_ceiling(wish, lock.worth_msat),
            fee_msat=lock.fee * coin,
            unit_msat=coin,
            change_fee_units=change_fee,
            wants_ecash=wish.wants_ecash,
            rungs=lock.rungs,
            state="paid",
            net_msat=lock.worth_msat - lock.fee * coin,
        )

    def _token_order(self, wish: Wish, plan: Plan, coin: int, change_fee: int) -> Order:
        return Order(
            funding="token",
            ceiling_msat=_ceiling(wish, plan.amount * coin),
            fee_msat=plan.fee * coin,
            unit_msat=coin,
            change_fee_units=change_fee,
            wants_ecash=wish.wants_ecash,
        )

    async def means(
        self, author: str, payer: str | None, plan: Subscription | None, *, person: bool
    ) -> Means:
        """What can pay for an order of `author` that came without coins, now.

        Of `payer` if he names one; a person's of any allowance, where he has nothing himself.
        """
        store, now = self._world.store, self._world.now_s()
        if payer is not None and payer != author:
            return await granted_means(store, author, payer, now)
        found = await own_means(store, author, plan)
        if person and not found.most_msat:
            found = await any_means(store, author, now) or found
        return found

    async def has_means(self, author: str) -> bool:
        """Could a person's question be paid without coins at all?"""
        plan = await self._subscribers.current(author)
        return (await self.means(author, None, plan, person=True)).most_msat > 0

    async def _account_funds(self, wish: Wish, prompt: int, plan: Subscription | None) -> _Funds:
        author = wish.letter.author
        person = wish.address.dialect != "client"
        means = await self.means(author, wish.payer, plan, person=person)
        answer = min(wish.request.max_tokens or wish.offer.max_tokens, wish.offer.max_tokens)
        most = cost_msat(wish.offer.price, Usage(prompt=prompt * 2, completion=answer))
        ceiling = most if wish.ceiling_msat is None else wish.ceiling_msat
        if not means.most_msat:
            raise RemoteError("your account here is empty", code="account-insufficient")
        hold, draw = means.draw(author, ceiling, self._world.now_s())
        order = Order(
            funding="account",
            ceiling_msat=ceiling,
            wants_ecash=False,
            state="paid",
            net_msat=hold,
            quota_msat=draw.quota_msat if draw else 0,
        )
        return _Funds(order, wish.letter.id, draw=draw)

    def _prompt_tokens(self, wish: Wish) -> int:
        request = wish.request
        size_bytes = request.size_bytes
        if size_bytes > self._shop.limits.request_bytes_max:
            raise RemoteError("the prompt is too large", code="message-too-large")
        tokens = prompt_estimate(size_bytes, request.frames)
        # The estimate is on the high side, so only twice the window is surely too long; the engine
        # says no for what lies between, and that is free.
        if tokens > 2 * wish.offer.context:
            raise RemoteError(
                f"about {tokens} tokens do not fit into {wish.offer.context}",
                code="context-too-long",
            )
        return min(tokens, wish.offer.context)

    def _body(self, wish: Wish, prompt: int, budget_msat: int) -> dict[str, Any]:
        body = wish.request.as_body()
        if wish.request.task != "embedding":
            asked = wish.request.max_tokens or wish.offer.max_tokens
            paid_for = affordable_tokens(wish.offer.price, prompt, budget_msat)
            body["max_tokens"] = max(1, min(asked, wish.offer.max_tokens, paid_for))
        body["model"] = self._shop.model(wish.offer.id).upstream
        return body


def _priced_by(plan: Subscription | None) -> tuple[Write, ...]:
    """The write that lets an order have a plan's prices only if it is not cancelled meanwhile."""
    if plan is None or plan.plan.percent == FULL:
        return ()
    return (Write("subscription_is", {"id": plan.id}, rows=1),)


def _ceiling(wish: Wish, worth_msat: int) -> int:
    """All that a client pays, by a token that is worth this. Raises RemoteError."""
    ceiling = worth_msat if wish.ceiling_msat is None else wish.ceiling_msat
    if worth_msat < ceiling:
        raise RemoteError(
            f"the token is worth {worth_msat} msat, less than the ceiling of {ceiling}",
            code="payment-amount-low",
        )
    return ceiling


def outputs_in(payment: LockedPayment | NewOutputs) -> tuple[BlindedMessage, ...]:
    """The client's own outputs."""
    return tuple(BlindedMessage(each.amount, each.id, each.B_) for each in payment.outputs)


def offered(wish: Wish, token: Token) -> Offered:
    """The locked token of a wish."""
    return Offered(wish.letter.id, wish.letter.author, token, wish.outputs or (), wish.deadline)
