"""What to do about a request whose outcome is not known, from what the mint says now.

The mint signs all outputs and spends all inputs of a swap together, or does nothing. So:

| inputs | our outputs        | then                                                          |
|--------|--------------------|---------------------------------------------------------------|
| SPENT  | all signed         | it was done: keep the coins                                   |
| SPENT  | not all, or other  | spent by somebody else: reject                                |
| MIXED  | any                | some spent by somebody else: reject                           |
| PENDING| any                | wait                                                          |
| UNSPENT| some signed        | our counters are old (a restored backup): renumber            |
| UNSPENT| signed, not ours   | its owner used it before: reject, it is poisoned              |
| UNSPENT| none, refused, keyset of our outputs no longer in use | renumber for the one that is |
| UNSPENT| none, refused      | nothing happened and nothing will: reject                     |
| UNSPENT| none, not refused  | nothing happened: send the same bytes again                   |

Where outputs of others are among them (a settle), a keyset that is gone rejects, for they are not
ours to make anew; and so do coins or outputs in use, for that may be one payer's doing.

For an issue (NUT-04) the quote takes the place of the inputs: PAID is UNSPENT, ISSUED is SPENT.
Coins that restore finds besides are imported, whatever else is done.

For a melt (NUT-05) the quote has a word too, and our outputs are blank ones of which the mint signs
as many as it needs for the change. Who pays an invoice by mistake pays twice, so nothing is taken
for certain before quote and inputs agree:

| quote  | inputs        | then                                                               |
|--------|---------------|--------------------------------------------------------------------|
| PAID   | SPENT         | it was done: keep the coins that restore finds                     |
| PAID   | any other     | wait (the mint is about to spend them; or others paid, see the log) |
| PENDING| any           | wait                                                               |
| UNPAID | PENDING       | wait: the payment may be on its way                                |
| UNPAID | SPENT, MIXED  | refused: some were spent by somebody else: reject; else send again |
| UNPAID | UNSPENT       | as for a swap                                                      |

A rejection counts only when no earlier request can still arrive (drive.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Literal

from nostrllm.wire.token import BlindedMessage, BlindSignature

Consumed = Literal["UNSPENT", "PENDING", "SPENT", "MIXED"]

#: Refusals that may be gone a moment later: coins or outputs in use, a quote under way, and a
#: keyset that is gone (the mint's list of keysets may be a few seconds old).
PASSING: Final = frozenset({11002, 11004, 12001, 12002, 20001, 20005})


#: Those of them that one payer can bring about for as long as he likes.
IN_USE: Final = frozenset({11002, 11004})


class Verdict(Enum):
    """What to do."""

    FINISH = auto()
    REJECT_SPENT = auto()
    REJECT_REFUSED = auto()
    REJECT_POISONED = auto()
    REJECT_STALE = auto()
    RENUMBER = auto()
    ROTATE = auto()
    RESEND = auto()
    WAIT = auto()


@dataclass(frozen=True, slots=True)
class Evidence:
    """The mint's answers, the outputs' signatures asked for after it said that inputs are spent.

    `states`: of each input, in order (empty for an issue). `refusal`: the mint's code, if it just
    refused this very request. `foreign`: the B_ of outputs that are not ours.
    """

    consumed: Consumed
    outputs: tuple[BlindedMessage, ...]
    restored: tuple[tuple[BlindedMessage, BlindSignature], ...]
    states: tuple[str, ...] = ()
    refusal: int | None = None
    keyset_in_use: bool = True
    foreign: frozenset[str] = frozenset()
    melt: str = ""  # the state of a melt's quote

    @property
    def poisoned(self) -> frozenset[str]:
        """Those of others' outputs that the mint has signed."""
        return self.foreign & {output.B_ for output, _ in self.restored}

    @property
    def signed_as_asked(self) -> bool:
        """Did the mint sign every output, each for its amount?"""
        return len(self.restored) == len(self.outputs) and all(
            (signature.amount, signature.id) == (output.amount, output.id)
            for output, signature in self.restored
        )


def consumed(states: Sequence[str]) -> Consumed:
    """The states of all inputs as one."""
    if all(state == "SPENT" for state in states):
        return "SPENT"
    if "SPENT" in states:
        return "MIXED"
    return "PENDING" if "PENDING" in states else "UNSPENT"


def decide(evidence: Evidence) -> Verdict:
    """The tables above."""
    if evidence.melt:
        return _decide_melt(evidence)
    match evidence.consumed:
        case "PENDING":
            return Verdict.WAIT
        case "SPENT" if evidence.signed_as_asked:
            return Verdict.FINISH
        case "SPENT" | "MIXED":
            return Verdict.REJECT_SPENT
    return _decide_unspent(evidence)


def _decide_melt(evidence: Evidence) -> Verdict:
    if evidence.melt != "UNPAID":
        done = evidence.melt == "PAID" and evidence.consumed == "SPENT"
        return Verdict.FINISH if done else Verdict.WAIT
    match evidence.consumed:
        case "PENDING":
            return Verdict.WAIT
        case "SPENT" | "MIXED":
            return Verdict.RESEND if evidence.refusal is None else Verdict.REJECT_SPENT
    return _decide_unspent(evidence)


def _decide_unspent(evidence: Evidence) -> Verdict:
    if evidence.restored:
        return Verdict.REJECT_POISONED if evidence.poisoned else Verdict.RENUMBER
    return Verdict.RESEND if evidence.refusal is None else _refused(evidence)


def _refused(evidence: Evidence) -> Verdict:
    """After a definite no, with nothing spent and nothing signed."""
    if not evidence.keyset_in_use:  # whatever code it gave: nutshell has none of its own for this
        return Verdict.REJECT_STALE if evidence.foreign else Verdict.ROTATE
    # Whoever holds up one output of a swap of many payers must not hold up the others.
    held_up = evidence.foreign and evidence.refusal in IN_USE
    passing = evidence.refusal in PASSING and not held_up
    return Verdict.WAIT if passing else Verdict.REJECT_REFUSED
