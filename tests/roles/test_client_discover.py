"""The market as our client remembers it."""

from __future__ import annotations

from pathlib import Path

from nostrllm.client.discover import Catalogue
from tests.roles.counterpart import counterpart


async def test_the_catalogue_remembers_for_a_while(
    tmp_path: Path, relay_url: str, mint_url: str
) -> None:
    async with counterpart(tmp_path, relay_url, mint_url) as bird:
        catalogue = Catalogue(bird.relays, bird.clock)

        async def mine(*, refresh: bool = False) -> list[str]:
            offers = await catalogue.offers(refresh=refresh)
            return [offer.model.id for offer in offers if offer.provider == bird.pubkey]

        assert await mine() == ["parrot"]
        bird.model = bird.model.model_copy(update={"id": "raven"})
        await bird.announce(late_s=1)
        assert await mine() == ["parrot"]
        assert await mine(refresh=True) == ["raven"]
