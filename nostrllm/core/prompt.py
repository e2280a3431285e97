"""What can be seen of a prompt without understanding it: its kind, its structure, its words.

At most `READ_MAX` characters are read, of a longer prompt the beginning and the end, where the
instruction stands; so the cost is bounded however long it is.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from math import log, log1p, sqrt
from operator import mul
from typing import Final, Literal, get_args
from zlib import crc32

Kind = Literal["choice", "arithmetic", "code", "open"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

HEAD_CHARS: Final = 2_000
TAIL_CHARS: Final = 1_200
READ_MAX: Final = HEAD_CHARS + TAIL_CHARS
#: Of more words than this only the first are hashed.
WORDS_MAX: Final = 256
#: Hashed words and pairs of words fall into this many buckets.
BUCKETS: Final = 1 << 14
# A pair's hash, of those of its words; the order counts.
_PAIR: Final = 1_000_003
_PRIME: Final = (1 << 31) - 1
#: How many numbers `structure` returns, and how many of them say something of any prompt; the rest
#: say how a sum is put together.
FEATURES: Final = 40
GENERAL: Final = 29

_OPTION: Final = re.compile(r"^[ \t]*\(?([A-J])[.):][ \t]*(.*)$", re.M)
_WORD: Final = re.compile(r"[^\W\d_]+|\d+|[^\w\s]|_")
_NUMBER: Final = re.compile(r"\d[\d,]*(?:\.\d+)?")
_MATHS: Final = re.compile(r"[=+^*<>\\∀∃→]")
_NUMERIC_OPTION: Final = re.compile(r"[\s$(−-]*[\d.,/%]+")
_DEFINES: Final = re.compile(r"\bdef \w+\(|\bimport \w+\n|\bSELECT\b.+\bFROM\b")
#: Without one of these the expression above need not be tried.
_MAY_DEFINE: Final = ("def ", "import ", "SELECT ")
_SHOUTED: Final = ("NOT ", "EXCEPT", "LEAST")
_COMBINED: Final = ("all of the", "none of the", "both of the", "neither of the", " ii")
_DIGITS: Final = string.digits.encode()
_CAPITALS: Final = string.ascii_uppercase.encode()
_SIGNS: Final = string.punctuation.replace("_", "").encode()


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_NEGATION: Final = _set("not except least false incorrect")
_REASON: Final = _set("why how explain best")
_LEGAL: Final = _set("law court plaintiff defendant statute")
_PERSON: Final = _set("he she his her man woman patient")
_MAKE: Final = _set("write implement complete create fix debug refactor")
_PROGRAM: Final = _set(
    "function program script code class method query regex algorithm python javascript sql bash"
)
_ASKS: Final = _set(
    "many much calculate compute find determine total evaluate solve fraction sum ?"
)
_COUNTS: Final = _set(
    "one two three four five six seven eight nine ten eleven twelve dozen half twice double triple"
    " third quarter thrice"
)
_MULTIPLY: Final = _set("half twice third quarter double triple times dozen")
_COMPARE: Final = _set("more less fewer than")
_LINK: Final = _set("if then but and")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as read.

    `stem` is the text before the options of a multiple choice question, `words` its words, figures
    and signs in lower case.
    """

    kind: Kind
    chars: int
    text: str
    stem: str
    options: tuple[str, ...]
    words: tuple[str, ...]


def read(prompt: str) -> Prompt:
    """Take a prompt apart."""
    chars, text = len(prompt), prompt
    if chars > READ_MAX:
        text = prompt[:HEAD_CHARS] + "\n" + prompt[-TAIL_CHARS:]
    stem, options = _choices(text)
    words = tuple(_WORD.findall(stem.lower()))
    return Prompt(_kind(text, options, words), chars, text, stem, options, words)


def _choices(text: str) -> tuple[str, tuple[str, ...]]:
    """The stem, and the options: lines A, B, … of which there are at least two."""
    start, found = 0, list[str]()
    for line in _OPTION.finditer(text):
        if line[1] == "A":
            start, found = line.start(), [line[2]]
        elif found and line[1] == "ABCDEFGHIJ"[len(found) : len(found) + 1]:
            found.append(line[2])
    return (text[:start], tuple(found)) if len(found) > 1 else (text, ())


def _kind(text: str, options: tuple[str, ...], words: tuple[str, ...]) -> Kind:
    if options:
        return "choice"
    seen = set(words)
    if not (seen.isdisjoint(_MAKE) or seen.isdisjoint(_PROGRAM)):
        return "code"
    if "```" in text or "#include" in text or (";\n" in text and "}" in text):
        return "code"
    if any(word in text for word in _MAY_DEFINE) and _DEFINES.search(text):
        return "code"
    figures = sum(map(str.isdigit, words)) + sum(map(_COUNTS.__contains__, words))
    return "arithmetic" if figures > 1 and not seen.isdisjoint(_ASKS) else "open"


def structure(prompt: Prompt) -> list[float]:
    """Lengths, shares and signs: `FEATURES` finite numbers."""
    text, stem, seen = prompt.text, prompt.stem, set(prompt.words)
    size, words, lower = len(text) + 1, text.split(), text.lower()
    lengths = [len(option) for option in prompt.options] or [0]
    mean = sum(lengths) / len(lengths)
    spread = sqrt(sum((one - mean) ** 2 for one in lengths) / len(lengths))
    raw = text.encode("utf-8", "replace")
    digits = _count(raw, _DIGITS)
    numeric = sum(_NUMERIC_OPTION.match(option) is not None for option in prompt.options)
    return [
        log1p(prompt.chars),
        log1p(len(stem)),
        log1p(mean),
        log1p(max(lengths)),
        log1p(min(lengths)),
        log1p(spread),
        digits / size,
        log1p(digits),
        _count(raw, _CAPITALS) / size,
        _count(raw, _SIGNS) / size,
        sum(map(len, words)) / (len(words) + 1),
        len(set(words)) / (len(words) + 1),
        log1p(stem.count("\n")),
        numeric / 4,
        float("_" in seen),
        float(not seen.isdisjoint(_NEGATION)),
        float(any(word in stem for word in _SHOUTED)),
        float("statement" in seen),
        float(any(phrase in lower for phrase in _COMBINED)),
        float(stem.rstrip().endswith("?")),
        log1p(stem.count(".")),
        float(_MATHS.search(text) is not None),
        float(not seen.isdisjoint(_REASON)),
        float("following" in seen),
        float('"' in seen),
        log1p(stem.count(",")),
        len(prompt.options) / 4,
        float(not seen.isdisjoint(_LEGAL)),
        float(not seen.isdisjoint(_PERSON)),
        *_figures(prompt),
    ]


def _count(raw: bytes, signs: bytes) -> int:
    return len(raw) - len(raw.translate(None, signs))


def _figures(prompt: Prompt) -> list[float]:
    """What makes a sum long: how many figures, and how they hang together."""
    stem, words = prompt.stem, prompt.words
    numbers = _NUMBER.findall(stem)
    sentences = stem.count(".") + stem.count("?") + 1
    return [
        log1p(len(numbers)),
        log1p(len(set(numbers))),
        log1p(max(map(len, numbers), default=0)),
        log1p("".join(numbers).count(".")),
        log1p(sum(map(_MULTIPLY.__contains__, words))),
        log1p(sum(map(_COMPARE.__contains__, words))),
        log1p(sum(map(_LINK.__contains__, words))),
        log1p(stem.count("%")),
        log1p(stem.count("/")),
        log1p(stem.count("$")),
        log1p(len(words) / sentences),
    ]


def hashed(prompt: Prompt) -> dict[int, float]:
    """Bucket → weight of the stem's words and pairs of words, a vector of length one.

    Weights are 1 + ln(count); an empty stem has none.
    """
    hashes = [crc32(word.encode("utf-8", "replace")) for word in prompt.words[:WORDS_MAX]]
    buckets = [one % BUCKETS for one in hashes]
    buckets += [(one * _PAIR + other) % _PRIME % BUCKETS for one, other in pairwise(hashes)]
    counts = Counter(buckets)
    weights = [1.0 if count == 1 else 1.0 + log(count) for count in counts.values()]
    norm = 1.0 / sqrt(sum(map(mul, weights, weights)) or 1.0)
    return {bucket: weight * norm for bucket, weight in zip(counts, weights, strict=True)}
