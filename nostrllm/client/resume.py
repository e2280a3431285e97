"""Finish what an earlier run left open: replies that came late, coins that nobody took.

Run at every start. Each open purchase is taken one step further or left as it is; nothing here can
pay twice, for a reply's coins are taken under the purchase's own name. Locked coins need nobody's
reply: their change is found at the mint, and what nobody took comes back after the locktime.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from nostrllm.client.account import Accounts
from nostrllm.client.ask import Buyer, proved_acceptance
from nostrllm.client.letters import Line, whisper
from nostrllm.client.purchases import Purchase
from nostrllm.client.replies import Listening, Message, Replies, listen
from nostrllm.client.settle import Outcome, outcome
from nostrllm.client.world import World
from nostrllm.errors import LocalError, NostrllmError
from nostrllm.ports import Conflict, Signer
from nostrllm.wire.event import Event, Rumor
from nostrllm.wire.order import Answer, Query, Refused, ReplyTo, Result

#: Replies stay on relays for thirty days.
STORED_S: Final = 31 * 86_400.0
#: After this nobody can answer any more, and what is open is given up.
OPEN_S_MAX: Final = 32 * 86_400
#: A message is refused after its deadline; clocks differ by so much.
LATE_S: Final = 5
AT_ONCE_MAX: Final = 4
#: So long change that a mint refused is tried again at each start.
RETRY_S: Final = 7 * 86_400
WAIT_S: Final = 5.0
#: What an answer says of an invoice that was not paid, or not yet.
STILL: Final = ("waiting", "expired")


async def resume(world: World, buyer: Buyer, *, wait_s: float = WAIT_S) -> None:
    """Take every open purchase as far as it goes; answers among them wait in `late`.

    Waits for each provider at most `wait_s`. Errors of one purchase leave it open for next time.
    """
    at_once = asyncio.Semaphore(AT_ONCE_MAX)

    async def one(work: Callable[[], Awaitable[None]]) -> None:
        async with at_once:
            # Conflict: somebody else has taken it a step further meanwhile
            with contextlib.suppress(NostrllmError, Conflict):
                await work()

    async with asyncio.TaskGroup() as group:
        for purchase in await buyer.left_open():
            group.create_task(one(partial(_finish, world, buyer, purchase, wait_s)))
        since = world.square.now_s() - RETRY_S
        for purchase, found in await buyer.purchases.untaken(since):
            group.create_task(one(partial(buyer.settler.retry, purchase, found)))


async def late_answers(buyer: Buyer) -> list[Outcome]:
    """The answers that came when nobody waited any more, until `seen` is told of them."""
    return [outcome(late) for late in await buyer.purchases.late()]


async def seen(buyer: Buyer, outcomes: Iterable[Outcome]) -> None:
    """The user has these late answers."""
    ids = {outcome.order_id for outcome in outcomes}
    for late in await buyer.purchases.late():
        if late.purchase.id in ids:
            await buyer.purchases.seen(late)


async def _finish(world: World, buyer: Buyer, purchase: Purchase, wait_s: float) -> None:
    if purchase.locked:
        await _owed(world, buyer, purchase, wait_s)
        return
    if purchase.state == "reserved":
        await buyer.settler.give_up(purchase, "cancelled", definite=True)
        return
    reply = purchase.reply
    if reply is None:
        found = await _reply(world, purchase, wait_s)
        if isinstance(found, Answer) and found.state in STILL:
            await _still(world, buyer, purchase, found)
            return
        if isinstance(found, Refused) and await buyer.settler.refused(purchase, found):
            return
        if not isinstance(found, Result | Answer):
            await _if_old(world, buyer, purchase)
            return
        reply = found
    if isinstance(reply, Answer) and reply.problem is not None:
        await buyer.settler.give_up(purchase, reply.problem.code, definite=True)
        return
    purchase = await _with_acceptance(world, buyer, purchase, reply)
    purchase, _ = await buyer.settler.settle(purchase, reply, seen=False)
    if purchase.locked:
        await _owed(world, buyer, purchase, wait_s)


async def _still(world: World, buyer: Buyer, purchase: Purchase, answer: Answer) -> None:
    """An invoice that fills an account is unpaid: keep it, or forget it once it cannot be paid."""
    if answer.state == "expired":
        await buyer.purchases.failed(purchase, "deadline")
    elif not purchase.to_pay:
        await Accounts(world, buyer).invoiced(purchase, answer)


async def _owed(world: World, buyer: Buyer, purchase: Purchase, wait_s: float) -> None:
    """An order that is over, but not what was locked for it: the mint is asked before anybody."""
    if purchase.locked == "due":
        if world.square.now_s() > purchase.created_at + OPEN_S_MAX:  # he never asked for it
            await buyer.purchases.unlocked(purchase, (), ())
        else:
            await _pay(world, buyer, purchase)
        return
    purchase = await buyer.debts.tend(purchase)
    if purchase.locked != "owed":
        return
    async with _hearing(world, purchase) as (replies, ask):
        purchase = await buyer.debts.wait(purchase, replies, (), wait_s / 2)
        if purchase.locked == "owed":
            await ask()
            await buyer.debts.wait(purchase, replies, (), wait_s / 2)


async def _pay(world: World, buyer: Buyer, purchase: Purchase) -> None:
    """Put what an answer cost into the account with its provider, who never took the coins for it.

    Once: the top-up names the order. What cannot be paid now stays due.
    """
    bargain, result = purchase.bargain, purchase.reply
    if bargain is None or purchase.id is None or not isinstance(result, Result):
        return
    paying = await buyer.purchases.paying(purchase.id)
    if any(one.state == "done" for one in paying):
        await buyer.purchases.unlocked(purchase, (), ())
        return
    if any(one.state != "failed" for one in paying):
        return
    offers = [one for one in await buyer.catalogue.offers() if one.provider == purchase.provider]
    if not offers:
        return
    amount = -(-result.cost_msat // 1_000)
    keysets = (await world.mints.at(bargain.mint).keysets()).values()
    ppk = max((one.fee_ppk for one in keysets if one.active), default=0)
    fee = -(-(amount.bit_length() + 1) * ppk // 1_000)
    await Accounts(world, buyer).top_up(offers[0], amount + fee, pays=purchase.id)
    await buyer.purchases.unlocked(purchase, (), ())


async def _reply(world: World, purchase: Purchase, wait_s: float) -> Message | None:
    """The reply to a purchase, from the relays or from the provider himself."""
    async with _hearing(world, purchase) as (replies, ask):
        found = await _first(replies, purchase, wait_s / 2)
        if found is None or (isinstance(found, Answer) and found.state in STILL):
            asked = await ask()
            found = await _first(replies, purchase, wait_s / 2, asked.id) or found
    return found


@asynccontextmanager
async def _hearing(
    world: World, purchase: Purchase
) -> AsyncIterator[tuple[Replies, Callable[[], Awaitable[Rumor]]]]:
    """What was and is said to a purchase, and a way to ask for it once more."""
    bargain, order_id = purchase.bargain, purchase.id
    if bargain is None or order_id is None:
        raise LocalError("the purchase was never sent")
    signer = world.reply(purchase.n)
    listening = Listening(signer, bargain.provider, bargain.reply_relays, stored_s=STORED_S)
    line = Line(bargain.provider, bargain.relays, world.buyer(bargain.provider))
    query = _query(signer, order_id, bargain.reply_relays)
    async with listen(world.square, listening) as replies:
        yield replies, partial(whisper, world.square, line, query)


async def _first(
    replies: Replies, purchase: Purchase, wait_s: float, asked: str = ""
) -> Message | None:
    """The first message that ends this purchase, if it comes in time.

    Else the last one that says that its invoice is unpaid, or, to our question `asked`, for ever.
    """
    still: Message | None = None
    try:
        async with asyncio.timeout(wait_s):
            while True:
                message = await replies.next()
                if isinstance(message, Answer) and message.state in STILL:
                    if message.to == asked and message.state == "expired":
                        return message
                    still = message if message.to == purchase.id else still
                elif not isinstance(message, Event) and _ends(message, purchase):
                    return message
    except TimeoutError:
        return still


def _ends(message: Message, purchase: Purchase) -> bool:
    """Only a result or a refusal ends an order; the others have an answer."""
    if isinstance(message, Refused):
        return message.order == purchase.id
    if purchase.what == "order":
        return isinstance(message, Result) and message.order == purchase.id
    return isinstance(message, Answer) and message.to == purchase.id


def _query(signer: Signer, order_id: str, relays: tuple[str, ...]) -> Query:
    return Query(
        reply=ReplyTo(key=signer.pubkey, relays=list(relays)), what="order", order=order_id
    )


async def _with_acceptance(
    world: World, buyer: Buyer, purchase: Purchase, reply: Result | Answer
) -> Purchase:
    if purchase.state != "sent" or isinstance(reply, Answer) or reply.accepted is None:
        return purchase
    event = proved_acceptance(world, purchase, reply.accepted)
    return purchase if event is None else await buyer.purchases.accepted(purchase, event)


async def _if_old(world: World, buyer: Buyer, purchase: Purchase) -> None:
    """Take back the coins of a message that the provider can no longer act on."""
    bargain, now = purchase.bargain, world.square.now_s()
    if bargain is None or now <= bargain.deadline + LATE_S:
        return
    if bargain.pay == "locked":  # he may have had its change signed, and the result was lost
        await buyer.settler.locks.look(purchase)
    back = await buyer.settler.give_up(purchase, "provider-silent")
    if not back and now > purchase.created_at + OPEN_S_MAX:
        await buyer.purchases.failed(purchase, "provider-silent")
