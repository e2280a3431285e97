"""Melt: the mint pays a Lightning invoice with coins of ours (NUT-05), and gives back what the
payment cost less than it reserved (NUT-08).

The coins are reserved with the request, its blank outputs and the caller's rows in one commit. DONE
spends them and keeps the change; if the mint refuses, and no earlier request can still arrive, they
are free again. A mint that does not say how it ended keeps them reserved. Resume: run again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import structlog

from nostrllm.core import coins
from nostrllm.core.money import unit_msat
from nostrllm.crypto.bdhke import y_of
from nostrllm.errors import OutcomeUnknown, RemoteError
from nostrllm.ports import Keyset, MeltQuote, Write
from nostrllm.purse.evidence import Evidence, consumed
from nostrllm.purse.operation import Operation, Own, Then, outcome_of, proof_of, proof_write
from nostrllm.purse.outputs import Coins, spent_since
from nostrllm.purse.till import BadSignature, Till, keyset_in_use, keyset_of, keysets_with
from nostrllm.wire.invoice import parse_invoice
from nostrllm.wire.token import BlindSignature, Proof, normal_url

#: What a blank output says its amount is; the mint writes another (NUT-08).
BLANK: Final = 1

#: Tries to find coins that pay an amount and their own fee to the unit.
_EXACT_TRIES: Final = 4

log = structlog.get_logger()


async def ask(till: Till, mint_url: str, unit: str, invoice: str) -> MeltQuote:
    """See Purse.quote_melt."""
    wanted = parse_invoice(invoice)
    if wanted.amount_msat is None:
        raise RemoteError("the invoice has no amount", code="payment-invoice-invalid")
    if wanted.expires_at <= till.clock.now():
        raise RemoteError("the invoice has expired", code="payment-invoice-invalid")
    quote = await till.mints.at(mint_url).quote_melt(wanted.text, unit)
    if quote.amount != -(-wanted.amount_msat // unit_msat(unit)):
        raise RemoteError(
            "the mint's quote is not for the invoice's amount", code="payment-mint-unaccepted"
        )
    return quote


async def plan(till: Till, op_id: str, mint_url: str, quote: MeltQuote) -> Operation:
    """The melt of a quote with free coins of ours, not stored yet.

    Raises LocalError `wallet-empty`, RemoteError, OutcomeUnknown.
    """
    mint = till.mints.at(mint_url)
    rows = await till.store.read("proof_free", mint=normal_url(mint_url), unit=quote.unit)
    have = [proof_of(row) for row in rows]
    keysets = await keysets_with(mint, {proof.id for proof in have})
    have = [proof for proof in have if proof.id in keysets]
    inputs = _inputs(have, quote.amount + quote.fee_reserve, keysets)
    fee = coins.fee(inputs, keysets)
    over = sum(proof.amount for proof in inputs) - fee - quote.amount
    keyset = keyset_in_use(keysets, quote.unit, [BLANK])
    outputs, own = await till.outputs(keyset.id, [Own(BLANK, 0)] * blanks(over))
    return Operation(
        op_id,
        "melt",
        mint.url,
        quote.unit,
        quote.amount,
        quote.fee_reserve + fee,
        outputs,
        own,
        tuple(inputs),
        quote.quote,
    )


def blanks(over: int) -> int:
    """How many outputs can carry any change up to `over` units (NUT-08); at least one."""
    return max(1, (over - 1).bit_length())


def _inputs(have: Sequence[Proof], need: int, keysets: Mapping[str, Keyset]) -> list[Proof]:
    """Coins worth `need` after their fee, to the unit if some are: what is over must come back."""
    target = need
    for _ in range(_EXACT_TRIES):
        chosen = coins.exact(have, target)
        if chosen is None:
            break
        fee = coins.fee(chosen, keysets)
        if target - fee == need:
            return chosen
        target = need + fee
    return coins.select(have, need, keysets)


# the mint's side


async def send(till: Till, operation: Operation) -> list[BlindSignature]:
    """Ask the mint to pay; its signatures on the first of our outputs, once it has.

    Raises MintRefused; OutcomeUnknown for every answer but PAID.
    """
    mint = till.mints.at(operation.mint)
    found = await mint.melt(operation.quote, operation.inputs, operation.outputs)
    if found.state != "PAID" or len(found.change) > len(operation.outputs):
        raise OutcomeUnknown("the mint has not said that the invoice is paid")
    return list(found.change)


async def evidence(till: Till, operation: Operation, refusal: int | None) -> Evidence:
    """What the mint knows of a melt.

    Outputs first: the mint signs them before it calls the quote paid, so that those found signed
    while the quote is UNPAID were signed in another past. Only what it says after both quote and
    inputs were found done is the whole change.
    """
    mint = till.mints.at(operation.mint)
    restored = await mint.restore(operation.outputs)
    quote = (await mint.melt_quote(operation.quote)).state
    states = await mint.states([y_of(proof.secret) for proof in operation.inputs])
    found = consumed(states)
    if found in ("SPENT", "MIXED") and quote != "PAID":
        quote = (await mint.melt_quote(operation.quote)).state
    if quote == "PAID" and found == "SPENT":
        restored = await mint.restore(operation.outputs)
    elif quote == "PAID" and found != "PENDING":
        log.error("melt_paid_otherwise", operation=operation.id[:16], mint=operation.mint)
    return Evidence(found, operation.outputs, tuple(restored), tuple(states), refusal, melt=quote)


async def finish(
    till: Till,
    operation: Operation,
    signed: Mapping[str, BlindSignature],
    then: Then,
    *,
    restored: bool = False,
) -> Operation:
    """Book a melt whose invoice is paid, whatever its change is worth; `signed` by B_.

    A signature that does not verify is noted as evidence and is no money. Raises OutcomeUnknown for
    one in the mint's first answer: restore tells which output each belongs to.
    """
    keyset = await keyset_of(till.mints.at(operation.mint), operation.outputs[0].id)
    change, bad = _change(till, operation, signed, keyset)
    if bad and not restored:
        raise OutcomeUnknown("the mint's change is not on the outputs it belongs to")
    note = json.dumps([signature.as_dict() for signature in bad]) if bad else ""
    proofs = [proof for proof, _ in change]
    done = replace(operation, state="DONE", fee=_cost(operation, proofs), note=note)
    if restored:
        change = await spent_since(till, operation, change)
    writes = [proof_write("proof_insert", proof, operation, own) for proof, own in change]
    writes.append(Write("proof_spend_all", {"owner": operation.id}))
    writes += then(outcome_of(done, proofs))
    await till.store.commit(done.finish(till.clock.now()), *writes)
    return done


def _change(
    till: Till, operation: Operation, signed: Mapping[str, BlindSignature], keyset: Keyset
) -> tuple[Coins, list[BlindSignature]]:
    """The coins of the outputs that were signed, and signatures that are none."""
    change: list[tuple[Proof, Own]] = []
    bad: list[BlindSignature] = []
    for own, output in zip(operation.own, operation.outputs, strict=True):
        signature = signed.get(output.B_)
        if signature is None:
            continue
        try:
            # The mint has written the amount.
            change.append((till.unblind(own, output, signature, keyset), own))
        except BadSignature:
            log.error(  # noqa: TRY400  there is nothing in the traceback
                "mint_signature_bad", operation=operation.id[:16], mint=operation.mint
            )
            bad.append(signature)
    return change, bad


def _cost(operation: Operation, change: Sequence[Proof]) -> int:
    """What a melt that is done cost besides its amount, in units."""
    put_in = sum(proof.amount for proof in operation.inputs)
    fee = put_in - operation.amount - sum(proof.amount for proof in change)
    if fee > operation.fee:
        log.warning("melt_fee_high", operation=operation.id[:16], fee=fee, agreed=operation.fee)
    return fee
