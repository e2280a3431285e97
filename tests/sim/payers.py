"""People whose wallet pays the provider's payment request, from a key that nobody reads."""

from __future__ import annotations

import asyncio
from typing import Any

from nostrllm.ports import Signer
from nostrllm.wire import kinds
from nostrllm.wire.event import Draft, rumor
from nostrllm.wire.payment_request import Payload, PaymentRequest, encode_payload, parse_request
from nostrllm.wire.token import Proof, Token, find_tokens
from tests.sim.clients import Client, Sent
from tests.sim.mint import URL


class Payer(Client):
    """Asks without money, and pays what he is asked for: enough or too little, once or twice."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.requests: dict[str, PaymentRequest] = {}
        self._keyring = arguments[4]

    async def act(self, provider: str) -> None:
        """Wait a while, ask, pay."""
        rng = self.rng
        await asyncio.sleep(rng.uniform(0, self.habits.apart_s * 2.5))
        question = rng.choice((f"{self.name}?", "/topup 50", "/topup"))
        asked = self.write("question", question, provider)
        asked.question = question if question.endswith("?") else ""
        asked.ceiling_msat = 1_000_000
        await self.insist(asked, provider)
        if not self.requests:
            return  # refused
        await asyncio.sleep(rng.choice((0.0, 5.0, 100.0)))
        [request] = self.requests.values()
        async with asyncio.TaskGroup() as group:
            for number in range(rng.choice((1, 1, 2))):
                amount = (request.amount or 40) + rng.choice((1, 1, 60, -2)) + 200 * number
                group.create_task(self._pay(provider, request, self.coins(amount)))

    async def _pay(self, provider: str, request: PaymentRequest, proofs: tuple[Proof, ...]) -> None:
        """Until it is said to be there; now and then in a second message, by another key."""
        text = encode_payload(Payload(request.id, Token(URL, "sat", proofs)))
        again = self.rng.random() < 0.3
        async with asyncio.TaskGroup() as group:
            first = self._letter(text, provider, proofs, honest=True)
            group.create_task(self._insist(first, provider))
            if again:
                await asyncio.sleep(self.rng.choice((0.0, 3.0)))
                await self._post(self._letter(text, provider, proofs, honest=False), provider)

    def _letter(
        self, text: str, to: str, proofs: tuple[Proof, ...], *, honest: bool
    ) -> tuple[Sent, Signer]:
        key: Signer = self._keyring.signer()
        now = int(asyncio.get_running_loop().time())
        letter = rumor(Draft(kinds.DM, text, now, (("p", to),)), key.pubkey)
        net = sum(proof.amount for proof in proofs) - self.mint.fee(len(proofs))
        sent = Sent("payment", letter, f"{net} sat added", proofs, honest)
        self.sent[letter.id] = sent
        return sent, key

    async def _insist(self, payment: tuple[Sent, Signer], to: str) -> None:
        while not payment[0].done.is_set():
            await self._post(payment, to)
            await asyncio.sleep(self.rng.uniform(10, 60))

    async def _post(self, payment: tuple[Sent, Signer], to: str) -> None:
        sent, key = payment
        await self.relays.publish(await key.wrap(sent.letter, to))

    def hear(self, text: str) -> None:
        """A request, money that came, an answer."""
        for token in find_tokens(text)[0]:
            self.got(token)
        if text.startswith("creqA"):
            request = parse_request(text)
            self.requests.setdefault(request.id or "", request)
        for sent in self.sent.values():
            if text not in sent.texts:
                sent.texts.append(text)
            if sent.kind == "question" and (self.requests or "Nothing was taken" in text):
                sent.done.set()
            if sent.kind == "payment" and text.startswith(sent.question):
                sent.done.set()
