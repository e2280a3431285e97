"""`nostrllm reviews PROVIDER`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from nostrllm.cli.terminal import print_table
from nostrllm.cli.where import Said, Where, public

if TYPE_CHECKING:
    from nostrllm.client.review import ReadReview
    from nostrllm.service.market import Market


@click.command()
@click.argument("provider")
@public
def reviews(where: Where, provider: str) -> None:
    """Read what people say of a provider; `paid` marks those who prove that they bought."""
    where.look(lambda market: _reviews(market, where, provider))


async def _reviews(market: Market, where: Where, provider: str) -> Said:
    found = await market.reviews(provider)
    if not where.json:
        rows = [
            (
                "★" * one.review.rating,
                "paid" if one.verified else "",
                datetime.fromtimestamp(one.review.created_at, UTC).date().isoformat(),
                one.review.author[:12],
                one.review.text,
            )
            for one in found
        ]
        print_table(("stars", "receipt", "day", "author", "text"), rows)
    return {"reviews": [_json(one) for one in found]}


def _json(one: ReadReview) -> dict[str, Any]:
    review = one.review
    return {
        "id": one.id,
        "author": review.author,
        "provider": review.provider,
        "rating": review.rating,
        "text": review.text,
        "model": review.model,
        "created_at": review.created_at,
        "verified": one.verified,
    }
