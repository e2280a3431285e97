"""What a Cashu mint answers, read strictly: into our objects, a definite no, or OutcomeUnknown.

Only an HTTP 4xx with a code we know is a no. What a mint writes in its messages is never passed on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from nostrllm.errors import MintRefused, OutcomeUnknown, RemoteError
from nostrllm.ports import Melt, MeltQuote, MintQuote
from nostrllm.wire.token import AMOUNT_MAX, BlindedMessage, BlindSignature

#: code → what it means and what we call it on the wire (NUTs, error codes).
REFUSALS: Final[dict[int, tuple[str, str]]] = {
    10000: ("the request is not allowed", "payment-token-invalid"),
    10001: ("a coin is not valid", "payment-token-invalid"),
    10002: ("an output was signed before", "internal"),
    10003: ("a coin is not valid", "payment-token-invalid"),
    11000: ("a coin may not be spent like this", "payment-token-invalid"),
    11001: ("a coin was spent before", "payment-token-spent"),
    11002: ("a coin is being spent elsewhere", "payment-pending"),
    11003: ("an output was signed before", "internal"),
    11004: ("an output is being signed", "payment-pending"),
    11005: ("inputs, outputs and fee do not balance", "payment-token-invalid"),
    11006: ("the amount is outside its limits", "payment-amount-high"),
    11007: ("a coin came twice", "payment-token-invalid"),
    11008: ("an output came twice", "internal"),
    11009: ("the coins are of several units", "payment-token-invalid"),
    11010: ("inputs and outputs are of different units", "payment-token-invalid"),
    11013: ("it has no such unit", "payment-mint-unaccepted"),
    12000: ("the keyset cannot be used", "payment-token-invalid"),
    12001: ("it has no such keyset", "payment-token-invalid"),
    12002: ("the keyset is no longer in use", "payment-token-invalid"),
    20000: ("its Lightning node failed", "payment-mint-unreachable"),
    20001: ("the invoice is not paid", "payment-pending"),
    20002: ("the coins of this quote were issued before", "payment-token-spent"),
    20003: ("it issues no coins now", "payment-mint-unaccepted"),
    20004: ("it did not get the invoice paid", "payment-lightning-failed"),
    20005: ("the payment is under way", "payment-pending"),
    20006: ("the invoice was paid before", "payment-invoice-invalid"),
    20007: ("the quote has expired", "payment-pending"),
    20008: ("the quote needs another signature", "payment-mint-unaccepted"),
    20009: ("the quote needs a key", "payment-mint-unaccepted"),
    30001: ("it wants a login", "payment-mint-unaccepted"),
    30002: ("it wants a login", "payment-mint-unaccepted"),
    31001: ("it wants a login", "payment-mint-unaccepted"),
    31002: ("it wants a login", "payment-mint-unaccepted"),
    80001: ("it wants a login", "payment-mint-unaccepted"),
    80002: ("it wants a login", "payment-mint-unaccepted"),
    81001: ("it wants a login", "payment-mint-unaccepted"),
    81002: ("it wants a login", "payment-mint-unaccepted"),
}

_STATES: Final = ("UNSPENT", "PENDING", "SPENT")
_QUOTE_STATES: Final = ("UNPAID", "PAID", "ISSUED")
_MELT_STATES: Final = ("UNPAID", "PENDING", "PAID")


def refuse(code: object) -> None:
    """Raises MintRefused if the code of an error is one that we know."""
    if isinstance(code, int) and code in REFUSALS:
        text, wire_code = REFUSALS[code]
        raise MintRefused(code, text, code=wire_code)


def signatures(body: Mapping[str, Any], outputs: Sequence[BlindedMessage]) -> list[BlindSignature]:
    """The mint's signatures on exactly these outputs. Raises OutcomeUnknown."""
    raw = body.get("signatures")
    if not isinstance(raw, list) or len(raw) != len(outputs):
        raise OutcomeUnknown("the mint signed another number of outputs")
    signatures = [_signature(row) for row in raw]
    for signature, output in zip(signatures, outputs, strict=True):
        if (signature.amount, signature.id) != (output.amount, output.id):
            raise OutcomeUnknown("the mint signed for another amount or keyset")
    return signatures


def _signature(raw: object) -> BlindSignature:
    try:
        return BlindSignature.from_dict(raw)
    except RemoteError as error:
        raise OutcomeUnknown("the mint's signature cannot be read") from error


def restored(
    body: Mapping[str, Any], outputs: Sequence[BlindedMessage]
) -> list[tuple[BlindedMessage, BlindSignature]]:
    """Those of our outputs that the mint has signed (NUT-09). Raises OutcomeUnknown."""
    echoed, signatures = body.get("outputs"), body.get("signatures")
    if not isinstance(echoed, list) or not isinstance(signatures, list):
        raise OutcomeUnknown("the mint's restored outputs cannot be read")
    ours = {output.B_: output for output in outputs}
    found: dict[str, tuple[BlindedMessage, BlindSignature]] = {}
    if len(echoed) != len(signatures):
        raise OutcomeUnknown("the mint restored outputs and signatures that do not match")
    for row, signature in zip(echoed, signatures, strict=True):
        name = row.get("B_") if isinstance(row, dict) else None
        if not isinstance(name, str) or name not in ours or name in found:
            raise OutcomeUnknown("the mint restored an output that we did not ask for")
        found[name] = (ours[name], _signature(signature))
    return list(found.values())


def states_by_y(rows: object) -> dict[str, str]:
    """The state of each coin (NUT-07). Raises OutcomeUnknown."""
    if not isinstance(rows, list):
        raise OutcomeUnknown("the mint's states cannot be read")
    states: dict[str, str] = {}
    for row in rows:
        y, state = (row.get("Y"), row.get("state")) if isinstance(row, dict) else (None, None)
        if not isinstance(y, str) or state not in _STATES:
            raise OutcomeUnknown("the mint's states cannot be read")
        states[y] = state
    return states


def mint_quote(body: Mapping[str, Any], amount: int, unit: str) -> MintQuote:
    """NUT-04; `amount` and `unit` are what we asked for, which older mints do not repeat.

    Raises OutcomeUnknown.
    """
    quote, request, state = body.get("quote"), body.get("request"), body.get("state")
    expiry, stated = body.get("expiry"), body.get("amount")
    if state is None and isinstance(body.get("paid"), bool):
        state = "PAID" if body["paid"] else "UNPAID"
    texts = isinstance(quote, str) and isinstance(request, str) and len(request) < 8_192
    if not texts or state not in _QUOTE_STATES:
        raise OutcomeUnknown("the mint's quote cannot be read")
    known = isinstance(stated, int) and 0 < stated <= AMOUNT_MAX
    if known and amount not in (0, stated):
        raise OutcomeUnknown("the mint's quote is for another amount")
    name = body.get("unit")
    return MintQuote(
        word(str(quote)),
        str(request),
        stated if isinstance(stated, int) and known else amount,
        name if isinstance(name, str) else unit,
        str(state),
        expiry if isinstance(expiry, int) and expiry > 0 else None,
    )


def melt_quote(body: Mapping[str, Any], request: str, unit: str) -> MeltQuote:
    """NUT-05; `request` and `unit` are what we asked for, which older mints do not repeat.

    Raises OutcomeUnknown.
    """
    quote, expiry = body.get("quote"), body.get("expiry")
    amount, reserve = body.get("amount"), body.get("fee_reserve")
    if not isinstance(quote, str):
        raise OutcomeUnknown("the mint's quote cannot be read")
    if body.get("unit") not in (None, unit):
        raise OutcomeUnknown("the mint's quote is for another unit")
    until = expiry if isinstance(expiry, int) and expiry > 0 else None
    return MeltQuote(word(quote), request, _whole(amount, 1), unit, _whole(reserve, 0), until)


def _whole(value: object, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= AMOUNT_MAX:
        raise OutcomeUnknown("the mint's quote has an amount that is none")
    return value


def melt(body: Mapping[str, Any]) -> Melt:
    """How a payment stands, and its change so far (NUT-05, NUT-08). Raises OutcomeUnknown."""
    state, change, preimage = body.get("state"), body.get("change"), body.get("payment_preimage")
    if state is None and isinstance(body.get("paid"), bool):
        state = "PAID" if body["paid"] else "UNPAID"
    if state not in _MELT_STATES or not isinstance(change, list | None):
        raise OutcomeUnknown("the mint does not say how the payment stands")
    known = isinstance(preimage, str) and len(preimage) <= 64 and preimage.isalnum()
    return Melt(str(state), tuple(map(_signature, change or [])), str(preimage) if known else "")


def word(quote: str) -> str:
    """A quote's id as part of a URL's path, and nothing more. Raises OutcomeUnknown."""
    if not quote.replace("-", "").replace("_", "").isalnum() or len(quote) > 200:
        raise OutcomeUnknown("the mint's quote has an id we cannot use")
    return quote
