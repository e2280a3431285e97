"""The table that decides about unknown outcomes, row by row."""

from __future__ import annotations

import pytest

from nostrllm.purse.evidence import Evidence, Verdict, consumed, decide
from nostrllm.wire.token import BlindedMessage, BlindSignature

OUTPUTS = tuple(BlindedMessage(amount, "k", str(amount)) for amount in (1, 2))
SIGNED = tuple((output, BlindSignature(output.amount, "k", "C")) for output in OUTPUTS)
OTHER = (SIGNED[0], (OUTPUTS[1], BlindSignature(4, "k", "C")))


def test_outputs_of_others() -> None:
    theirs = frozenset([OUTPUTS[1].B_])
    unspent = Evidence("UNSPENT", OUTPUTS, SIGNED[1:], ("UNSPENT",), foreign=theirs)
    assert unspent.poisoned == theirs
    assert decide(unspent) is Verdict.REJECT_POISONED
    ours = Evidence("UNSPENT", OUTPUTS, SIGNED[:1], ("UNSPENT",), foreign=theirs)
    assert decide(ours) is Verdict.RENUMBER
    held_up = Evidence("UNSPENT", OUTPUTS, (), ("UNSPENT",), 11004, foreign=theirs)
    assert decide(held_up) is Verdict.REJECT_REFUSED
    unknown_yet = Evidence("UNSPENT", OUTPUTS, (), ("UNSPENT",), 12002, foreign=theirs)
    assert decide(unknown_yet) is Verdict.WAIT
    gone = Evidence("UNSPENT", OUTPUTS, (), ("UNSPENT",), 12002, False, theirs)
    assert decide(gone) is Verdict.REJECT_STALE


@pytest.mark.parametrize(
    ("states", "restored", "refusal", "verdict"),
    [
        ("SPENT SPENT", SIGNED, None, Verdict.FINISH),
        ("SPENT SPENT", SIGNED, 11001, Verdict.FINISH),
        ("SPENT SPENT", SIGNED[:1], 11001, Verdict.REJECT_SPENT),
        ("SPENT SPENT", OTHER, 11001, Verdict.REJECT_SPENT),
        ("SPENT SPENT", (), None, Verdict.REJECT_SPENT),
        ("SPENT UNSPENT", SIGNED, None, Verdict.REJECT_SPENT),
        ("SPENT PENDING", (), 11001, Verdict.REJECT_SPENT),
        ("PENDING UNSPENT", (), None, Verdict.WAIT),
        ("PENDING PENDING", (), 11002, Verdict.WAIT),
        ("UNSPENT UNSPENT", SIGNED, None, Verdict.RENUMBER),
        ("UNSPENT UNSPENT", SIGNED[:1], 11003, Verdict.RENUMBER),
        ("UNSPENT UNSPENT", (), None, Verdict.RESEND),
        ("UNSPENT UNSPENT", (), 11003, Verdict.REJECT_REFUSED),
        ("UNSPENT UNSPENT", (), 10001, Verdict.REJECT_REFUSED),
        ("UNSPENT UNSPENT", (), 11004, Verdict.WAIT),
        ("UNSPENT UNSPENT", (), 12002, Verdict.WAIT),
    ],
)
def test_each_row(
    states: str,
    restored: tuple[tuple[BlindedMessage, BlindSignature], ...],
    refusal: int | None,
    verdict: Verdict,
) -> None:
    found = consumed(states.split())
    assert decide(Evidence(found, OUTPUTS, restored, (), refusal)) is verdict


@pytest.mark.parametrize(
    ("quote", "states", "restored", "refusal", "verdict"),
    [
        ("PAID", "SPENT SPENT", SIGNED[:1], None, Verdict.FINISH),
        ("PAID", "SPENT SPENT", (), 11001, Verdict.FINISH),
        ("PAID", "PENDING PENDING", SIGNED[:1], 11002, Verdict.WAIT),
        ("PAID", "UNSPENT UNSPENT", (), 11000, Verdict.WAIT),
        ("PAID", "SPENT UNSPENT", (), 11001, Verdict.WAIT),
        ("PENDING", "PENDING PENDING", SIGNED, None, Verdict.WAIT),
        ("PENDING", "SPENT SPENT", SIGNED, None, Verdict.WAIT),
        ("PENDING", "UNSPENT UNSPENT", (), 11000, Verdict.WAIT),
        ("UNPAID", "PENDING UNSPENT", (), 20004, Verdict.WAIT),
        ("UNPAID", "SPENT SPENT", SIGNED, None, Verdict.RESEND),
        ("UNPAID", "SPENT UNSPENT", (), None, Verdict.RESEND),
        ("UNPAID", "SPENT UNSPENT", (), 11001, Verdict.REJECT_SPENT),
        ("UNPAID", "UNSPENT UNSPENT", (), None, Verdict.RESEND),
        ("UNPAID", "UNSPENT UNSPENT", SIGNED[:1], None, Verdict.RENUMBER),
        ("UNPAID", "UNSPENT UNSPENT", (), 20004, Verdict.REJECT_REFUSED),
        ("UNPAID", "UNSPENT UNSPENT", (), 20005, Verdict.WAIT),
    ],
)
def test_each_row_of_a_melt(
    quote: str,
    states: str,
    restored: tuple[tuple[BlindedMessage, BlindSignature], ...],
    refusal: int | None,
    verdict: Verdict,
) -> None:
    found = consumed(states.split())
    assert decide(Evidence(found, OUTPUTS, restored, (), refusal, melt=quote)) is verdict


@pytest.mark.parametrize("refusal", [11000, 12002])
def test_a_keyset_that_is_gone(refusal: int) -> None:
    for restored, verdict in (((), Verdict.ROTATE), (SIGNED, Verdict.RENUMBER)):
        evidence = Evidence("UNSPENT", OUTPUTS, restored, (), refusal, keyset_in_use=False)
        assert decide(evidence) is verdict
    assert decide(Evidence("UNSPENT", OUTPUTS, (), (), None, False)) is Verdict.RESEND
