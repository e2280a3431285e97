"""From a question to an offer and its price, before anything is paid.

Three steps: which offers can answer this question at all, what each will cost by its own price
list, and how it can be paid from what the wallet holds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, assert_never

from pydantic import TypeAdapter, ValidationError

from nostrllm.client.discover import Offer, chosen
from nostrllm.client.payment import takes_locks
from nostrllm.client.world import World
from nostrllm.core.money import affordable_tokens, cost_msat, prompt_estimate
from nostrllm.core.pays import Coin
from nostrllm.core.plan import FULL
from nostrllm.errors import LocalError, NostrllmError
from nostrllm.wire.amount import coins
from nostrllm.wire.announcement import ModelOffer, Price
from nostrllm.wire.order import AnyRequest, Body, Usage

#: What is asked for when the user named no limit, and what most answers are shorter than.
ANSWER_TOKENS: Final = 1_024
ANSWER_TOKENS_LIKELY: Final = 256
#: Providers refuse an order that cannot pay for so much of an answer.
ANSWER_TOKENS_MIN: Final = 16
#: What one answer may cost where the user names no limit.
BUDGET_MSAT: Final = 1_000_000
#: And what may be sent for one of coins that count for what the provider says: he can make any
#: answer cost all of them by a rate, within any limit in sats.
BUDGET_CENTS: Final = 200
#: A rate that was looked up longer ago, or so far ahead of our clock, is not paid at.
RATE_S_MAX: Final = 3_600
RATE_AHEAD_S_MAX: Final = 60
#: A promise that ends sooner than this is not pinned: the order must travel.
PROMISE_S_MIN: Final = 5.0

#: What every model takes; any other field of a request must be on its list of parameters.
ALWAYS_TAKEN: Final = frozenset(("messages", "prompt", "input", "max_tokens"))

Prompt = str | Sequence[Mapping[str, Any]] | Sequence[str]

_BODY: Final[TypeAdapter[AnyRequest]] = TypeAdapter(Body)


@dataclass(frozen=True, slots=True)
class Question:
    """What the user wants: the conversation, and his limits.

    `pay`: by coins locked to the provider, who works at once and has them swapped afterwards; by a
    token, which he swaps first; or from the account with him. Where a mint cannot lock coins a
    token is sent instead. `change` says where what is not used goes: into the wallet, into the
    account, or by Lightning to `invoice` (BOLT 11, of an exact amount), of which what does not fit
    stays in the account. `of` is the key (hex) of another who lets us spend from his account.
    `provider` is a public key (hex) or a name, `model` a model id; None means whichever is cheapest
    of those that lately broke no bargain. `max_msat` (None: without limit) bounds what the provider
    charges and the mint's fee for his taking the token. It does not bound the mint's fees in our
    own wallet, for making the token and for taking the change, nor the less than a coin by which
    the token is rounded up and which comes back as credit. Coins whose worth is the provider's word
    (usd) are bounded by themselves: no more than `max_cents` (None: without limit) are sent for an
    answer, whatever he says that they count for. `deadline_s` bounds the wait for the
    first word. `parameters` are further fields of an OpenAI request.
    A `task` other than chat takes the prompt as a text to go on with, or as texts to make vectors
    of: then the answer is a JSON list, each vector in base64 of little-endian float32.
    `on_quote` is called with the Quote before anything is paid; raising there ends it. `on_waiting`
    is called when the order has to wait: how many are before it, and for about how many seconds.
    """

    prompt: Prompt
    provider: str | None = None
    model: str | None = None
    max_tokens: int | None = None
    max_msat: int | None = BUDGET_MSAT
    max_cents: int | None = BUDGET_CENTS
    pay: Literal["locked", "token", "account"] = "locked"
    change: Literal["ecash", "account", "lightning"] = "ecash"
    invoice: str | None = None
    of: str | None = None
    stream: bool = True
    deadline_s: float = 60.0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    task: Literal["chat", "completion", "embedding"] = "chat"
    on_quote: Callable[[Quote], object] | None = None
    on_waiting: Callable[[int, int], object] | None = None

    def _check_money(self) -> None:
        if (self.change == "lightning") != (self.invoice is not None):
            message = "an invoice goes with change by lightning, and with nothing else"
            raise LocalError(message, code="message-invalid")
        if self.pay == "account" and self.change == "lightning":
            message = "an account has no change: refund it by lightning"
            raise LocalError(message, code="message-invalid")
        if self.of is not None and self.pay != "account":
            message = "an account of another goes with payment from an account"
            raise LocalError(message, code="message-invalid")

    def body(self) -> AnyRequest:
        """The request as it travels. Raises LocalError `message-invalid` naming the wrong field."""
        self._check_money()
        fields = {**self._asked(), **self.parameters}
        try:
            return _BODY.validate_python(fields)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(str(step)[:40] for step in first["loc"][:6])
            raise LocalError(f"{where}: {first['msg']}", code="message-invalid") from None

    def _asked(self) -> dict[str, Any]:
        asked, alone = self.prompt, isinstance(self.prompt, str)
        match self.task:
            case "chat":
                messages = [{"role": "user", "content": asked}] if alone else list(asked)
                return {"messages": messages, "max_tokens": self.max_tokens}
            case "completion":
                return {"prompt": asked, "max_tokens": self.max_tokens}
            case "embedding":
                return {"input": [asked] if alone else list(asked)}
            case _:
                assert_never(self.task)


@dataclass(frozen=True, slots=True)
class Quote:
    """What an answer will cost, and at most: all in msat.

    `ceiling_msat` is all-in: work and the mint's fee (`fee_msat`). With `pay` = locked or token,
    `amount` coins of `unit` at `mint` are sent and what is not used comes back. The offer's prices
    are those for these coins, `percent` of what is listed. `unit_msat` is what one coin counts for,
    where that is a rate: then the provider looked it up at unix time `rate_at`.
    """

    offer: Offer
    body: AnyRequest
    estimate_msat: int
    ceiling_msat: int
    fee_msat: int = 0
    pay: Literal["locked", "token", "account"] = "token"
    mint: str = ""
    unit: str = "sat"
    amount: int = 0
    percent: int = FULL
    unit_msat: int | None = None
    rate_at: int | None = None


def fitting(
    question: Question, body: AnyRequest, offers: Sequence[Offer], now: float
) -> list[Offer]:
    """The offers that can answer, cheapest estimate first.

    Raises LocalError `provider-unknown`, `model-unknown`, `message-invalid` (nobody takes those
    parameters) or `context-too-long`: the first thing that leaves none.
    """
    left = [offer for offer in offers if offer.valid_until > now + PROMISE_S_MIN]
    if question.provider is not None:
        key = chosen(question.provider, (offer.announcement for offer in left))
        left = [offer for offer in left if offer.provider == key]
    if not left:
        message = "no provider is offering anything on these relays now"
        raise LocalError(message, code="provider-unknown")
    if question.model is not None:
        left = [offer for offer in left if offer.model.id == question.model]
        if not left:
            raise LocalError(f"nobody offers {question.model[:64]!r} now", code="model-unknown")
    left = [offer for offer in left if _does(offer.model, body)]
    if not left:
        what = "images" if body.images else body.task
        raise LocalError(f"no model here does {what}", code="message-invalid")
    used = set(body.as_body()) - ALWAYS_TAKEN
    left = [offer for offer in left if used <= set(offer.model.parameters)]
    if not left:
        names = ", ".join(sorted(used))
        raise LocalError(f"no model here takes {names}", code="message-invalid")
    prompt = prompt_tokens(body)
    left = [offer for offer in left if prompt + ANSWER_TOKENS_MIN <= offer.model.context]
    if not left:
        raise LocalError("the prompt is too long for every model", code="context-too-long")
    return sorted(left, key=lambda offer: (estimate_msat(offer, body), offer.provider))


def _does(model: ModelOffer, body: AnyRequest) -> bool:
    return model.does(body.task) and (not body.images or "image" in model.modalities)


def prompt_tokens(body: AnyRequest) -> int:
    """About how many tokens the conversation has."""
    return prompt_estimate(body.size_bytes, body.frames)


def answer_tokens(offer: Offer, body: AnyRequest) -> int:
    """How many tokens the answer may have at this offer."""
    room = offer.model.context - prompt_tokens(body)
    return max(1, min(body.max_tokens or ANSWER_TOKENS, offer.model.max_tokens, room))


def estimate_msat(offer: Offer, body: AnyRequest) -> int:
    """What the answer will likely cost."""
    likely = min(answer_tokens(offer, body), ANSWER_TOKENS_LIKELY)
    return cost_msat(offer.model.price, Usage(prompt=prompt_tokens(body), completion=likely))


async def quote(world: World, question: Question, offers: Sequence[Offer]) -> Quote:
    """The cheapest way to have the question answered that the wallet can pay.

    Raises LocalError: see `fitting`; `payment-amount-low` when `max_msat` buys no answer,
    `wallet-empty` for what the wallet holds; OutcomeUnknown when no mint says what it charges.
    """
    body = question.body()
    first: NostrllmError | None = None
    fit = fitting(question, body, offers, world.square.clock.now())
    if question.pay != "account":
        held = (await world.purse.balance()).keys()
        fit.sort(key=lambda offer: _least_msat(offer, body, held))
    for offer in fit:
        try:
            return await _priced(world, question, body, offer)
        except NostrllmError as error:  # his fault, his mint's or ours: the next may do
            first = first or error
    raise first or LocalError("nobody can be paid", code="provider-unknown")


def _least_msat(offer: Offer, body: AnyRequest, held: Collection[tuple[str, str]]) -> int:
    """What the answer will likely cost who pays with the cheapest coins that he holds."""
    coins = [coin for pot, coin in offer.coins.items() if pot in held]
    models = [coin.offer(offer.model) for coin in coins] or [offer.model]
    return min(estimate_msat(replace(offer, model=model), body) for model in models)


async def _priced(world: World, question: Question, body: AnyRequest, offer: Offer) -> Quote:
    if question.pay == "account":
        return _quoted(question.max_msat, body, offer)
    first: NostrllmError | None = None
    found: list[Quote] = []
    for pot in await _pots(world, offer, question):
        priced = replace(offer, model=pot.coin.offer(offer.model))
        try:
            work = _quoted(question.max_msat, body, priced)
            found.append(await _paid_from(world, pot, work, question))
        except NostrllmError as error:
            first = first or error
    if found:  # by what the work and the fee cost; of equal ones the first
        return min(found, key=lambda one: one.estimate_msat)
    raise (
        first
        or await _unusable(world, offer)
        or LocalError(
            "the wallet holds nothing at a mint that this provider accepts: "
            + ", ".join(offer.announcement.mints),
            code="wallet-empty",
        )
    )


def _quoted(most_msat: int | None, body: AnyRequest, offer: Offer) -> Quote:
    """The work alone: how long an answer `most_msat` buys, and what it costs."""
    tokens, ceiling = _limited(most_msat, offer.model.price, body, answer_tokens(offer, body))
    asked = body.model_copy(update={"max_tokens": tokens})
    return Quote(offer, asked, min(estimate_msat(offer, asked), ceiling), ceiling, pay="account")


@dataclass(frozen=True, slots=True)
class _Pot:
    """What the wallet holds at one mint in one unit, and what it is worth to the provider."""

    coin: Coin
    held: int

    @property
    def mint(self) -> str:
        return self.coin.mint

    @property
    def unit(self) -> str:
        return self.coin.unit


async def _pots(world: World, offer: Offer, question: Question) -> list[_Pot]:
    """What could pay this provider: the user's own mint first, sats before other units."""
    coins, now = offer.coins, world.square.clock.now()
    pots = [
        _Pot(coins[pot], held)
        for pot, held in (await world.purse.balance()).items()
        if pot in coins and held > 0 and _usable(coins[pot], question, now)
    ]
    return sorted(pots, key=lambda pot: (pot.mint != world.mint, pot.unit != "sat", -pot.held))


async def _unusable(world: World, offer: Offer) -> LocalError | None:
    """Why coins that he takes are not paid with; None where there are none."""
    if not any(pot in offer.coins for pot in await world.purse.balance()):
        return None
    return LocalError(
        "the wallet holds only coins whose rate this provider looked up too long ago, or whose "
        "change he returns as ecash alone",
        code="payment-rate-unknown",
    )


def _usable(coin: Coin, question: Question, now: float) -> bool:
    """Is its rate, if it has one, young enough, and is its change taken where it is wanted?"""
    if coin.at is not None and not -RATE_AHEAD_S_MAX <= now - coin.at <= RATE_S_MAX:
        return False
    return question.change == "ecash" or (coin.at is None and coin.percent <= FULL)


async def _paid_from(world: World, pot: _Pot, work: Quote, question: Question) -> Quote:
    """The quote with the mint's fee for taking the token. Raises LocalError."""
    coin = pot.coin.msat
    keysets = await world.mints.at(pot.mint).keysets()
    # A provider works for no coins at a rate before they are his: locking them gains nothing.
    locks = question.pay == "locked" and pot.coin.at is None
    locked = locks and await takes_locks(world, pot.mint)
    ppk = max((one.fee_ppk for one in keysets.values() if one.unit == pot.unit), default=0)
    # one coin for each bit, at most, and one bit to spare for the fee itself
    fee = -(-(work.ceiling_msat // coin + 1).bit_length() * ppk // 1_000) * coin
    if question.max_msat is not None and work.ceiling_msat + fee > question.max_msat:
        work = _quoted(question.max_msat - fee, question.body(), work.offer)
    # a mint takes no token that is worth its fee alone, free as the work may be
    amount = max(fee // coin + 1, -(-(work.ceiling_msat + fee) // coin))
    most = None if pot.coin.at is None else question.max_cents
    if most is not None and amount > most:
        raise LocalError(
            f"at this provider's rate it takes {coins(amount, pot.unit)}, more than "
            f"{coins(most, pot.unit)}; raise the limit",
            code="payment-amount-low",
        )
    if amount > pot.held:
        raise LocalError(
            f"this needs {amount} {pot.unit} at {pot.mint}, where the wallet holds {pot.held}",
            code="wallet-empty",
        )
    return replace(
        work,
        estimate_msat=work.estimate_msat + fee,
        ceiling_msat=work.ceiling_msat + fee,
        fee_msat=fee,
        pay="locked" if locked else "token",
        mint=pot.mint,
        unit=pot.unit,
        amount=amount,
        percent=pot.coin.percent,
        unit_msat=None if pot.coin.at is None else coin,
        rate_at=pot.coin.at,
    )


def _limited(most_msat: int | None, price: Price, body: AnyRequest, tokens: int) -> tuple[int, int]:
    """How many answer tokens fit into the user's limit, and what they and the prompt cost."""
    prompt = prompt_tokens(body)
    least = max(tokens, ANSWER_TOKENS_MIN)
    ceiling = cost_msat(price, Usage(prompt=prompt, completion=least))
    if most_msat is None or ceiling <= most_msat:
        return tokens, ceiling
    count = min(tokens, affordable_tokens(price, prompt, most_msat))
    if count < ANSWER_TOKENS_MIN:
        raise LocalError(
            f"an answer costs more than {most_msat} msat; raise the limit",
            code="payment-amount-low",
        )
    return count, cost_msat(price, Usage(prompt=prompt, completion=count))
