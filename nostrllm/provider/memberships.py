"""A person's commands about allowances and plans."""

from __future__ import annotations

from dataclasses import dataclass

from nostrllm.core.allowance import Allowance
from nostrllm.core.money import MSAT_PER_SAT
from nostrllm.errors import RemoteError
from nostrllm.provider.admit import Admission, Letter
from nostrllm.provider.allowances import Allowances
from nostrllm.provider.plans import Plans
from nostrllm.wire import chat


@dataclass(frozen=True, slots=True)
class Memberships:
    """Answers /allow, /disallow, /plans, /subscribe and /unsubscribe; an empty answer was given
    with the change itself."""

    plans: Plans
    allowances: Allowances
    admission: Admission

    async def has_means(self, pubkey: str) -> bool:
        """Could a question of this key be paid without coins?"""
        return await self.admission.has_means(pubkey)

    async def allow(self, letter: Letter, said: chat.Chat) -> list[str]:
        """List the allowances, or give one."""
        if not said.argument:
            found = await self.allowances.of(letter.author)
            return [self.allowances.text(found)]
        key, limit_sat, period_s = chat.parse_allowance(said.argument)
        limit = limit_sat * MSAT_PER_SAT
        await self.allowances.allow(letter, Allowance(letter.author, key, limit, period_s=period_s))
        return []

    async def disallow(self, letter: Letter, said: chat.Chat) -> list[str]:
        """Take one back."""
        await self.allowances.disallow(letter, chat.parse_key(said.argument))
        return []

    async def list_plans(self, letter: Letter, _said: chat.Chat) -> list[str]:
        """What can be bought, and what is in force."""
        return [await self.plans.text(letter.author)]

    async def subscribe(self, letter: Letter, said: chat.Chat) -> list[str]:
        """Buy one."""
        words = said.argument.split()
        if not words or words[1:] not in ([], ["renew"]):
            raise RemoteError("write /subscribe, the plan's name, and renew if it shall go on")
        await self.plans.subscribe(letter, words[0], renew=len(words) > 1)
        return []

    async def unsubscribe(self, letter: Letter, _said: chat.Chat) -> list[str]:
        """End it."""
        await self.plans.cancel(letter)
        return []
