"""What an audit checks of payments for payment requests: the money is whoever asked for it."""

from __future__ import annotations

from collections.abc import Iterator

from nostrllm.provider.books import Books


def credited(books: Books) -> Iterator[str | None]:
    """Is what came for a payment request a top-up of the asker's, ended as the payment says?"""
    ends = {"waiting": (None,), "taken": ("pending", "done", "refused"), "done": ("done",)}
    ends["refused"] = (None, "refused")
    for row in books.payments.values():
        transfer = books.transfers.get(row.id)
        state = None if transfer is None else transfer.state
        if state not in ends.get(row.state, ()):
            yield f"payment {row.id} is {row.state}, its top-up {state}"
        elif transfer and (transfer.kind, transfer.author) != ("topup", row.author):
            yield f"payment {row.id} is not credited to whoever asked"
        else:
            yield None
