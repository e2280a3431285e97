"""What the written working of a word problem tells about its result.

Features only; `core/validate.py` weighs them. Where figures come from is the point: each operand
should stand in the question, be computed before, or be a constant everybody knows, and each figure
of the question should be used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from nostrllm.core.sums import TEXT_MAX, Equality, equalities, number, numbers

_FIGURE: Final = r"[^\d\n]{0,40}?([-−]?\s?(?:\d[\d,]*(?:\.\d+)?|\.\d+))"
_MARK: Final = re.compile(r"(?:####|\\boxed\{)" + _FIGURE)
_SPOKEN: Final = re.compile(r"\banswer(?: is)?:?\**" + _FIGURE, re.I)
_ANY: Final = re.compile(r"[-−]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")
_ALGEBRA: Final = re.compile(r"\blet\s+\w+\s+(?:be|=)|\b\d*[xyn]\s*[-+=]|[=+]\s*\d*[xyn]\b", re.I)
_UNITS: Final = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    " sixteen seventeen eighteen nineteen"
)
_TENS: Final = "ten twenty thirty forty fifty sixty seventy eighty ninety hundred"
_WORDS: Final[dict[str, tuple[int | Fraction, ...]]] = {
    **{word: (10 * value,) for value, word in enumerate(_TENS.split(), 1)},
    **{word: (value,) for value, word in enumerate(_UNITS.split(), 1)},
    "half": (Fraction(1, 2), 2, 50),
    "halves": (Fraction(1, 2), 2),
    "twice": (2,),
    "double": (2,),
    "doubles": (2,),
    "doubled": (2,),
    "triple": (3,),
    "tripled": (3,),
    "thrice": (3,),
    "third": (Fraction(1, 3), 3),
    "thirds": (Fraction(1, 3), 3),
    "quarter": (Fraction(1, 4), 4, 25),
    "quarters": (Fraction(1, 4), 4, 25),
    "fourth": (Fraction(1, 4), 4),
    "fifth": (Fraction(1, 5), 5),
    "dozen": (12,),
    "pair": (2,),
    "both": (2,),
    "couple": (2,),
    "thousand": (1_000,),
}
#: Known without being told: days, months, minutes, percent, and what turns shares into each other.
_CONSTANTS: Final = frozenset(
    map(Fraction, (0, 1, 2, 3, 4, 5, 7, 10, 12, 16, 24, 30, 36, 52, 60, 100, 365, 1000, 3600))
)


@dataclass(frozen=True, slots=True)
class Working:
    """Of one answer to a word problem.

    chars, steps: how much is written before the result, and how many equalities; wrong: those that
    do not hold; foreign: operands from nowhere; unused: figures of the question that no calculation
    takes; odd: values that are negative or no multiple of 1/100; final: the result, None without
    one; marked: it is named as such; fits_last, fits_any: it is the last value computed, or any;
    given: it stands in the question.
    """

    chars: int
    steps: int
    wrong: int
    foreign: int
    unused: int
    odd: int
    final: Fraction | None
    marked: bool
    fits_last: bool
    fits_any: bool
    given: bool
    algebra: bool


def work(question: str, answer: str) -> Working:
    """Look through an answer up to its result."""
    answer = answer[:TEXT_MAX]
    mark = _marked(answer)
    body = answer[: mark.start()] if mark and mark.start() else answer
    found = equalities(body)
    final = _final(answer, mark)
    values = [one.right for one in found]
    asked, told = set(_told(question)), set(numbers(question))
    used = {operand for one in found for operand in one.operands} | set(values)
    scaled = {n / 100 for n in used} | {n * 100 for n in used} | {1 / n for n in used if n}
    return Working(
        chars=len(body),
        steps=len(found),
        wrong=sum(not one.holds for one in found),
        foreign=_foreign(found, asked),
        unused=sum(n not in used and n not in scaled for n in told if n != 1) if found else 0,
        odd=sum(value < 0 or value * 100 % 1 != 0 for value in values),
        final=final,
        marked=mark is not None,
        fits_last=bool(values) and final is not None and abs(values[-1]) == abs(final),
        fits_any=final is not None and any(abs(value) == abs(final) for value in values),
        given=final is not None and final in told,
        algebra=_ALGEBRA.search(body) is not None,
    )


def up_to_result(answer: str) -> str:
    """Without what a model that does not know where to end says after its result."""
    mark = _MARK.search(answer[:TEXT_MAX])
    return answer[: mark.end()] if mark else answer


def result(answer: str) -> Fraction | None:
    """The figure that an answer comes to."""
    answer = answer[:TEXT_MAX]
    return _final(answer, _marked(answer))


def _marked(answer: str) -> re.Match[str] | None:
    """The first result set apart by a sign, or else the last that is called the answer."""
    if (set_apart := _MARK.search(answer)) is not None:
        return set_apart
    spoken = list(_SPOKEN.finditer(answer))
    return spoken[-1] if spoken else None


def _final(answer: str, mark: re.Match[str] | None) -> Fraction | None:
    """The marked result, or the last figure of the text."""
    if mark is not None:
        text = mark[1]
    else:
        every = _ANY.findall(answer)
        if not every:
            return None
        text = every[-1]
    value = number(text.lstrip("-− "))
    return -value if value is not None and text[0] in "-−" else value


def _told(question: str) -> Iterator[Fraction]:
    """The figures of a question, in digits or words, as percentages and their complements."""
    for one in numbers(question):
        yield from (one, one / 100, 1 + one / 100, 1 - one / 100, 100 - one, 100 + one)
    for word in re.findall(r"[a-z]+", question[:TEXT_MAX].lower()):
        yield from map(Fraction, _WORDS.get(word, ()))


def _foreign(found: list[Equality], told: set[Fraction]) -> int:
    """Operands that are neither told, nor known to everybody, nor computed before."""
    known, foreign = told | _CONSTANTS, 0
    for one in found:
        for operand in one.operands:
            if operand not in known and (not operand or 1 / operand not in known):
                foreign += 1
                known.add(operand)
        known.add(one.left)
        known.add(one.right)
    return foreign
