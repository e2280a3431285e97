"""A person in a DM: commands answered, questions turned into orders.

Conversations live in memory only, bounded in number and length: nothing a person wrote is kept.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from nostrllm.core.money import MSAT_PER_SAT, cost_msat, prompt_estimate
from nostrllm.errors import RemoteError
from nostrllm.ports import Row, Write
from nostrllm.provider.accounts import Accounts
from nostrllm.provider.admit import Letter, Wish
from nostrllm.provider.announce import Announcer
from nostrllm.provider.lightning import Lightning
from nostrllm.provider.memberships import Memberships
from nostrllm.provider.reply import RESULT_KEEP_S, Letterbox
from nostrllm.provider.requests import Requests
from nostrllm.provider.serve import Counter
from nostrllm.provider.shop import Shop, World
from nostrllm.provider.ticket import Ticket
from nostrllm.wire import chat, creqb
from nostrllm.wire.amount import coins as worth
from nostrllm.wire.amount import sats
from nostrllm.wire.announcement import ModelOffer
from nostrllm.wire.order import AnyRequest, ChatMessage, ChatRequest, Usage
from nostrllm.wire.payment_request import encode_request
from nostrllm.wire.receipt import commitment
from nostrllm.wire.token import encode_token, find_tokens

CONVERSATIONS_MAX: Final = 512
MESSAGES_MAX: Final = 40

#: A person waits so long for the first token, and a token older than this is not redeemed unasked.
DEADLINE_S: Final = 120
STALE_S: Final = 900
CONVERSATION_CHARS_MAX: Final = 24_000
SYSTEM: Final = "You are a helpful assistant."

#: An unpaid question is estimated with an answer of so many tokens.
ANSWER_TOKENS_TYPICAL: Final = 150

#: Words that carry no money are worth an hour of trying.
TALK_KEEP_S: Final = 3_600

Texts = list[str]


class Conversations:
    """What was said lately, per person; the oldest are forgotten first."""

    def __init__(self, messages_max: int) -> None:
        self._messages_max = messages_max
        self._of: OrderedDict[str, list[ChatMessage]] = OrderedDict()

    def messages(self, pubkey: str, prompt: str, chars_max: int) -> list[ChatMessage]:
        """The conversation so far with a new question, newest kept within `chars_max`."""
        question = ChatMessage(role="user", content=prompt)
        kept: list[ChatMessage] = []
        room = chars_max - len(prompt)
        for message in reversed(self._of.get(pubkey, [])):
            room -= len(str(message.content))
            if room < 0:
                break
            kept.append(message)
        return [ChatMessage(role="system", content=SYSTEM), *reversed(kept), question]

    def add(self, pubkey: str, prompt: str, answer: str) -> None:
        """Remember a question and its answer."""
        said = self._of.setdefault(pubkey, [])
        said.append(ChatMessage(role="user", content=prompt))
        said.append(ChatMessage(role="assistant", content=answer))
        del said[: -self._messages_max]
        self._of.move_to_end(pubkey)
        while len(self._of) > CONVERSATIONS_MAX:
            self._of.popitem(last=False)

    def forget(self, pubkey: str) -> None:
        """Begin anew."""
        self._of.pop(pubkey, None)


class Talk:
    """Answers people. `ask` takes a wish to its order."""

    def __init__(  # noqa: PLR0913  the parts a conversation touches
        self,
        world: World,
        shop: Shop,
        announcer: Announcer,
        accounts: Accounts,
        lightning: Lightning,
        counter: Counter,
        letterbox: Letterbox,
        requests: Requests,
        memberships: Memberships,
        salt: Callable[[str], str],
    ) -> None:
        self._world = world
        self._shop = shop
        self._announcer = announcer
        self._accounts = accounts
        self._lightning = lightning
        self._counter = counter
        self._letterbox = letterbox
        self._requests = requests
        self._memberships = memberships
        self._salt = salt
        self._late: OrderedDict[str, Letter] = OrderedDict()
        self._asked: OrderedDict[str, str] = OrderedDict()
        self.conversations = Conversations(MESSAGES_MAX)
        self._commands: dict[str, Callable[[Letter, chat.Chat], Awaitable[Texts]]] = {
            "": self._unknown,
            "help": self._help,
            "models": self._models,
            "price": self._price,
            "model": self._model,
            "balance": self._balance,
            "topup": self._topup,
            "qr": self._qr,
            "refund": self._refund,
            "change": self._change,
            "allow": memberships.allow,
            "disallow": memberships.disallow,
            "plans": memberships.list_plans,
            "subscribe": memberships.subscribe,
            "unsubscribe": memberships.unsubscribe,
            "cancel": self._cancel,
            "status": self._status,
            "new": self._new,
            "receipt": self._receipt,
        }

    async def hear(self, letter: Letter) -> Wish | None:
        """Answer a command, or return the wish of a question.

        Raises RemoteError when the message is refused.
        """
        said = chat.parse_chat(letter.text)
        if said.command == "go":
            return await self._go(letter)
        return await self._act(letter, said, fresh=False)

    async def _act(self, letter: Letter, said: chat.Chat, *, fresh: bool) -> Wish | None:
        self._check_tokens(letter, said, fresh=fresh)
        if said.command is None:
            return await self._question(letter, said)
        await self._answer(letter, await self._commands[said.command](letter, said))
        return None

    def remember(self, ticket: Ticket, answer: str) -> None:
        """An answer to a person's question was settled: it is context for the next one."""
        prompt = self._asked.pop(ticket.id, None)
        if prompt is not None and answer:
            self.conversations.add(ticket.author, prompt, answer)

    async def again(self, letter: Letter) -> Wish | None:
        """The wish of a question that waited for its money; None if that is gone again."""
        return await self._question(letter, chat.parse_chat(letter.text))

    async def ask_for_more(self, wish: Wish, error: RemoteError) -> None:
        """Answer a question that the account cannot pay with a request for what is missing."""
        balance = await self._accounts.balance_msat(wish.letter.author)
        coins = chat.suggested_coins(self._estimate(wish.offer, wish.request))
        words = chat.missing_text(error.message, error.code)
        missing = max(1, coins - balance // MSAT_PER_SAT)
        await self._ask(wish.letter, words, missing, waits=True)

    async def _ask(self, letter: Letter, words: str, amount: int, *, waits: bool) -> None:
        """Send the words, and after them a message with a payment request alone.

        Raises RemoteError `client-blocked`: whom we do not serve we ask for no money.
        """
        await self._accounts.check_served(letter.author)
        request, writes = self._requests.ask(letter, amount, waits=waits)
        await self._answer(letter, [words, encode_request(request)], writes)

    async def _answer(self, letter: Letter, texts: Texts, writes: Sequence[Write] = ()) -> None:
        """Store and send the texts; the message counts as heard from then on."""
        outgoing = await self._letterbox.seal(letter.address, texts)
        # Only change is given again here; every other text carries no money.
        keep_s = RESULT_KEEP_S if find_tokens(texts[-1] if texts else "")[0] else TALK_KEEP_S
        heard = {"id": letter.id, "wrap": letter.wrap, "at": self._world.now_s()}
        await self._world.store.commit(
            Write("heard_note", heard),
            *writes,
            *self._letterbox.store(letter.id, outgoing, keep_s=keep_s),
        )
        self._letterbox.wake()

    # questions

    async def _question(self, letter: Letter, said: chat.Chat) -> Wish | None:
        if not said.prompt and not said.tokens:
            raise RemoteError("the message is empty; /help tells what can be done")
        if len(said.prompt) > chat.TEXT_CHARS_MAX:
            raise RemoteError("the question is too long", code="message-too-large")
        if not said.prompt:
            await self._answer(letter, await self._topup(letter, said))
            return None
        offer, price_id = await self._chosen(letter.author)
        request = self._request(letter.author, said.prompt, offer)
        if not said.tokens and not await self._memberships.has_means(letter.author):
            estimate = self._estimate(offer, request)
            words = chat.payment_text(offer, self._shop.mints, estimate)
            await self._ask(letter, words, chat.suggested_coins(estimate), waits=True)
            return None
        self._asked[letter.id] = said.prompt
        while len(self._asked) > CONVERSATIONS_MAX:
            self._asked.popitem(last=False)
        return Wish(
            letter=letter,
            address=letter.address,
            offer=offer,
            price_id=price_id,
            request=request,
            ceiling_msat=None,
            token=said.tokens[0] if said.tokens else None,
            wants_ecash=True,
            commitment=commitment(letter.author, self._salt(letter.id)),
            deadline=self._world.now_s() + DEADLINE_S,
        )

    def _check_tokens(self, letter: Letter, said: chat.Chat, *, fresh: bool) -> None:
        """Which tokens may be redeemed at all. Raises RemoteError; nothing is taken then."""
        if not said.tokens:
            return
        if len(said.tokens) > 1:
            raise RemoteError("one token per message, please", code="payment-token-invalid")
        if not letter.alone:
            raise RemoteError(
                "this message went to others too, so its token is not safe to take; write to me "
                "alone",
                code="payment-token-invalid",
            )
        age_s = self._world.now_s() - letter.created_at
        if not fresh and age_s > STALE_S:
            self._late[letter.author] = letter
            while len(self._late) > CONVERSATIONS_MAX:
                self._late.popitem(last=False)
            raise RemoteError(
                f"your message came {age_s // 60} minutes late; write /go to take it up now",
                code="message-stale",
            )

    async def _go(self, letter: Letter) -> Wish | None:
        late = self._late.pop(letter.author, None)
        if late is None:
            raise RemoteError("there is no late message; send it again", code="message-stale")
        said = chat.parse_chat(late.text)
        late = replace(late, id=letter.id, wrap=letter.wrap, address=letter.address)
        return await self._act(late, said, fresh=True)

    async def _chosen(self, pubkey: str) -> tuple[ModelOffer, str]:
        rows = await self._world.store.read("account_get", pubkey=pubkey)
        known = {model.offer.id for model in self._shop.models}
        chosen = str(rows[0]["model"]) if rows else ""
        return self._announcer.current(chosen if chosen in known else self._default)

    @property
    def _default(self) -> str:
        """The first model that can be had."""
        offered = self._announcer.offers
        return offered[0].id if offered else self._shop.models[0].offer.id

    def _request(self, pubkey: str, prompt: str, offer: ModelOffer) -> ChatRequest:
        # Half of the window is left for the answer; a token is taken as two characters at worst.
        chars_max = min(CONVERSATION_CHARS_MAX, offer.context)
        return ChatRequest(messages=self.conversations.messages(pubkey, prompt, chars_max))

    def _estimate(self, offer: ModelOffer, request: AnyRequest) -> int:
        prompt = prompt_estimate(request.size_bytes, request.frames)
        answer = min(ANSWER_TOKENS_TYPICAL, offer.max_tokens)
        return cost_msat(offer.price, Usage(prompt=prompt, completion=answer))

    # commands

    async def _unknown(self, _letter: Letter, _said: chat.Chat) -> Texts:
        return ["I do not know this command.", *await self._help(_letter, _said)]

    async def _help(self, letter: Letter, _said: chat.Chat) -> Texts:
        offer, _ = await self._chosen(letter.author)
        request = self._request("", "What is the capital of France?", offer)
        example = chat.suggested_coins(self._estimate(offer, request)) * 1_000
        return [chat.help_text(self._shop.name, self._shop.mints, example)]

    async def _models(self, letter: Letter, _said: chat.Chat) -> Texts:
        chosen, _ = await self._chosen(letter.author)
        return [chat.models_text(self._announcer.offers, chosen.id)]

    async def _price(self, letter: Letter, said: chat.Chat) -> Texts:
        if said.argument:
            offer, _ = self._announcer.current(said.argument)
        else:
            offer, _ = await self._chosen(letter.author)
        return [f"{offer.id}: {chat.price_line(offer)}."]

    async def _model(self, letter: Letter, said: chat.Chat) -> Texts:
        if not said.argument:
            return await self._models(letter, said)
        offer, _ = self._announcer.current(said.argument)
        await self._world.store.commit(
            Write("account_model", {"pubkey": letter.author, "model": offer.id})
        )
        return [f"{offer.id} answers from now on; {chat.price_line(offer)}."]

    async def _balance(self, letter: Letter, _said: chat.Chat) -> Texts:
        balance = await self._accounts.balance_msat(letter.author)
        return [f"Your balance is {sats(balance)}."]

    async def _topup(self, letter: Letter, said: chat.Chat) -> Texts:
        if said.tokens:
            await self._accounts.top_up(letter, said.tokens[0])
            return []
        invoice = chat.lightning_amount(said.argument)
        if invoice is not None:
            await self._lightning.deposits.ask(letter, invoice * MSAT_PER_SAT)
            return []
        amount = chat.parse_sats(said.argument) if said.argument else 0
        worth = await self._accounts.balance_msat(letter.author) + amount * MSAT_PER_SAT
        if worth > self._shop.balance_msat_max:
            raise RemoteError(
                f"an account may hold {sats(self._shop.balance_msat_max)} at most",
                code="payment-amount-high",
            )
        await self._ask(letter, chat.topup_text(amount), amount, waits=False)
        return []

    async def _qr(self, letter: Letter, _said: chat.Chat) -> Texts:
        request = await self._requests.last(letter.author)
        if request is None:
            return ["There is no payment request of yours that is open."]
        return [
            "Your last payment request in capitals, for a QR code:",
            creqb.encode_request(request),
        ]

    async def _refund(self, letter: Letter, said: chat.Chat) -> Texts:
        if said.argument:
            await self._lightning.melts.refund(letter, chat.invoice_in(said.argument))
            return []
        await self._accounts.refund(letter)
        return []

    async def _change(self, letter: Letter, _said: chat.Chat) -> Texts:
        store = self._world.store
        rows = list(await store.read("order_last_change", author=letter.author))
        rows += await store.read("transfer_last_refund", author=letter.author)
        if not rows:
            return ["There is no change of yours here. /balance shows your credit."]
        newest: Row = max(rows, key=lambda row: int(row["created_at"]))
        token = await self._world.purse.token_of(newest["id"])
        if token is None:
            return ["Your last change has been spent already."]
        return [f"Your last change, {worth(token.amount, token.unit)}:", encode_token(token)]

    async def _cancel(self, letter: Letter, _said: chat.Chat) -> Texts:
        waited = self._requests.withdraw(letter.author)
        row = await self._last(letter)
        if row is None and waited:
            return ["Withdrawn: your question runs no more when it is paid."]
        if row is not None and self._counter.cancel(row["id"]):
            return ["Stopping. What was written so far is charged."]
        return ["Nothing of yours is running."]

    async def _status(self, letter: Letter, _said: chat.Chat) -> Texts:
        row = await self._last(letter)
        if row is None:
            return ["You have not asked anything yet."]
        cost = f", cost {sats(row['cost_msat'])}" if row["cost_msat"] else ""
        code = f" [{row['code']}]" if row["code"] else ""
        state = "running" if self._counter.runs(row["id"]) else row["state"]
        return [f"Your last question is {state}{cost}.{code}"]

    async def _new(self, letter: Letter, _said: chat.Chat) -> Texts:
        self.conversations.forget(letter.author)
        self._requests.withdraw(letter.author)
        return ["Forgotten. A new conversation begins."]

    async def _receipt(self, letter: Letter, _said: chat.Chat) -> Texts:
        rows = await self._world.store.read("order_last_receipt", author=letter.author)
        if not rows:
            return ["There is no receipt yet."]
        row = rows[0]
        receipt = {"receipt": json.loads(row["receipt"]), "salt": self._salt(row["id"])}
        return [json.dumps(receipt, ensure_ascii=False, separators=(",", ":"))]

    async def _last(self, letter: Letter) -> Row | None:
        rows = await self._world.store.read("order_last", author=letter.author)
        return rows[0] if rows else None
