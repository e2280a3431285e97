"""Recheck the calculations written in a text, with exact fractions.

Read are equalities such as `3 * $4 = $12`, `20% of 50 = 10`, `1,200 x 3 = 3,600 apples`, chains
`a + b = c = d`, and GSM8K's `<<3*4=12>>`. What is no plain calculation, an unknown, a power, a
function, is passed over: "wrong" is said only of what was read whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Final

#: At most so many characters of a text are read, and so many equalities.
TEXT_MAX: Final = 20_000
EQUALITIES_MAX: Final = 200
_SIDE_MAX: Final = 120
_DIGITS_MAX: Final = 15

_NUMBER: Final = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+")
#: GSM8K's mark, and the figure that the text goes on with.
_MARKED: Final = re.compile(r"<<([^<>=]{1,120})=([^<>=]{1,60})>>\s*(?:[$€£]\s*)?([\d,]*\.?\d+)?")
_SIDE: Final = re.compile(r"[\d.,%()+\-−–*/x×·÷$€£ \tof]+")
_TOKEN: Final = re.compile(r"(\d[\d,]*(?:\.\d+)?|\.\d+)|(of\b)|(.)")
_UNIT: Final = r"(?!x\b|of\b)[a-zA-Z][a-zA-Z'.-]*"
_UNIT_WORD: Final = re.compile(
    rf"(?<=[\d%)])\s*{_UNIT}(?:\s+{_UNIT}){{0,3}}\s*(?=[-+*/x×·÷=−–)]|$)"
)
#: An unknown, or a time of day: the line is no plain calculation.
_UNKNOWN: Final = re.compile(
    r"\d[a-wyzA-WYZ]\b(?=\s*[-+*/=)])|\b[b-wyzB-HJ-WYZ]\b\s*[-+*/=]"
    r"|[-+*/=(]\s*[b-wyzB-HJ-WYZ]\b|\d:\d\d"
)
_SIGNS: Final = {"x": "*", "×": "*", "·": "*", "of": "*", "÷": "/", "−": "-", "–": "-"}


@dataclass(frozen=True, slots=True)
class Equality:
    """`left` = `right` as read; `operands`: the numbers on the left, `shown`: the right's text."""

    left: Fraction
    right: Fraction
    operands: tuple[Fraction, ...]
    shown: str

    @property
    def holds(self) -> bool:
        """Within what the right side's last digit can show; whole numbers may be rounded."""
        if self.left in (self.right * 100, self.right / 100):
            return True  # a share and its percentage
        places = len(self.shown.partition(".")[2])
        step = Fraction(1, 10**places)
        off = abs(self.left - self.right)
        if places == 0:
            return off == 0 or (off < 1 and self.left.denominator not in (1, 2, 4, 5))
        return off <= step


def number(text: str) -> Fraction | None:
    """A number with commas as thousands, or None."""
    plain = text.replace(",", "").rstrip(".")
    if not plain or len(plain) > _DIGITS_MAX or not plain.isascii():
        return None
    return Fraction(Decimal(plain))


def numbers(text: str) -> list[Fraction]:
    """All numbers in a text, in order."""
    found = (number(match[0]) for match in _NUMBER.finditer(text[:TEXT_MAX]))
    return [one for one in found if one is not None]


def equalities(text: str) -> list[Equality]:
    """The equalities of a text that could be read whole, in order, at most `EQUALITIES_MAX`."""
    found = list[Equality]()
    for line in text[:TEXT_MAX].splitlines():
        marked = [_equality(*match.groups()) for match in _MARKED.finditer(line)]
        if marked:
            found += [one for one in marked if one is not None]
        elif "=" in line and not _UNKNOWN.search(line):
            found += _in_line(line)
        if len(found) >= EQUALITIES_MAX:
            break
    return found[:EQUALITIES_MAX]


def _in_line(line: str) -> Iterator[Equality]:
    """Equalities of a line without marks: what stands at both sides of each sign."""
    parts = line.split("=")
    for left, right in pairwise(parts):
        one = _equality(_tail(left), _head(right))
        if one is not None and (one.operands[1:] or one.left == one.right):
            yield one


def _without_units(side: str) -> str:
    return _UNIT_WORD.sub(" ", side)


def _tail(side: str) -> str:
    """The calculation a text ends with."""
    side = _without_units(side[-_SIDE_MAX:])
    runs = [match for match in _SIDE.finditer(side) if match.end() == len(side)]
    return runs[0][0] if runs else ""


def _head(side: str) -> str:
    """The calculation a text begins with."""
    match = _SIDE.match(_without_units(side[:_SIDE_MAX]))
    return match[0] if match else ""


def _equality(left: str, right: str, after: str | None = None) -> Equality | None:
    """`after`: a figure that should repeat the right side; if it does not, one of them is wrong."""
    a, b = evaluate(left), evaluate(right)
    if a is None or b is None:
        return None
    value, text = b.value, right
    if b.operands[0] == a.value:
        value, text = a.value, ""  # `16 - 3 = 13 - 4 = 9`: written down carelessly, meant right
    repeated = value if after is None else number(after)
    if a.value == value and repeated is not None and repeated != value:
        value, text = repeated, after or ""
    shown = _NUMBER.search(text)
    plain = shown[0].rstrip(",") if shown and len(b.operands) == 1 else ""
    return Equality(a.value, value, a.operands, plain)


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The value of a calculation, and the numbers in it."""

    value: Fraction
    operands: tuple[Fraction, ...]


class _Unreadable(Exception):
    """Never leaves this module."""


def evaluate(text: str) -> Evaluated | None:
    """The value of `3 * (4 + 20%)`; None when it is anything but numbers and + - * / ( )."""
    tokens = _tokens(text)
    if tokens is None or not tokens:
        return None
    reader = _Reader(tokens)
    try:
        value = reader.total()
    except (_Unreadable, ZeroDivisionError):
        return None
    return Evaluated(value, tuple(reader.operands)) if reader.at == len(tokens) else None


def _tokens(text: str) -> list[Fraction | str] | None:
    found = list[Fraction | str]()
    for match in _TOKEN.finditer(text[:_SIDE_MAX].strip().rstrip(".,")):
        figure, _, sign = match.groups()
        if figure:
            value = number(figure)
            if value is None:
                return None
            found.append(value)
        elif sign is None or sign not in " \t$€£":
            found.append(_SIGNS.get(match[0], match[0]))
    return found


class _Reader:
    """Recursive descent: total = product {±product}; product = factor {*/ factor}."""

    def __init__(self, tokens: Sequence[Fraction | str]) -> None:
        self._tokens = tokens
        self.at = 0
        self.operands = list[Fraction]()

    def _next(self, signs: str) -> str:
        """Take the next token if it is one of those signs."""
        token = self._tokens[self.at] if self.at < len(self._tokens) else ""
        if isinstance(token, str) and token and token in signs:
            self.at += 1
            return token
        return ""

    def total(self) -> Fraction:
        value = self._product()
        while sign := self._next("+-"):
            other = self._product()
            value = value + other if sign == "+" else value - other
        return value

    def _product(self) -> Fraction:
        value = self._factor()
        while True:
            if sign := self._next("*/"):
                other = self._factor()
                value = value * other if sign == "*" else value / other
            elif self.at < len(self._tokens) and self._tokens[self.at] == "(":
                value *= self._factor()
            else:
                return value

    def _factor(self) -> Fraction:
        if self._next("-"):
            return -self._factor()
        if self._next("("):
            value = self.total()
            if not self._next(")"):
                raise _Unreadable
        else:
            token = self._tokens[self.at] if self.at < len(self._tokens) else ""
            if isinstance(token, str):
                raise _Unreadable
            self.at += 1
            self.operands.append(token)
            value = token
        while self._next("%"):
            value /= 100
        return value
