"""A provider makes its small coins into large ones, of what it has earned, and the books agree."""

from __future__ import annotations

from pathlib import Path

from nostrllm.provider.audit import audit
from nostrllm.provider.books import read_books
from nostrllm.provider.tidy import Tidying
from tests.adapters.scripted import scripted
from tests.roles.market import config_text, selling
from tests.roles.test_provider_audit import customer, model


async def test_small_coins_are_swapped_when_the_owner_can_pay_for_it(
    relay_url: str, mint_url: str, tmp_path: Path
) -> None:
    async with scripted(model) as engine:
        text = config_text(tmp_path / "stall", [relay_url], mint_url, engine.url)
        async with (
            selling(text) as stall,
            customer(relay_url, mint_url, tmp_path, stall.pubkey) as who,
        ):
            for _ in range(22):
                assert (await who.top_up(64)).state == "done"  # 63 are 6 coins
            tidying = Tidying(stall.world)
            assert await tidying.tidy() == 0  # nothing is earned yet
            for n in range(3):
                await who.answered("Hello?", c=f"{n:064}")
            before = await stall.world.purse.balance()
            assert await tidying.tidy() == 1
            assert await tidying.tidy() == 0  # few are left
            after = await stall.world.purse.balance()
            assert before[mint_url, "sat"] - after[mint_url, "sat"] == 10
            books = await stall.books()
            assert books["fees"] == 10_000
            wrong = [one for one in audit(await read_books(stall.world.store)) if not one.ok]
            assert wrong == []
