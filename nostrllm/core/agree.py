"""Do two answers to one prompt say the same?

Two cheap models that agree on a short answer are right far more often than either alone.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

from nostrllm.core import answer as check
from nostrllm.core.prompt import Prompt
from nostrllm.core.working import result

_WORD: Final = re.compile(r"\w+")
_ARTICLES: Final = frozenset(("a", "an", "the"))
_WORDS_MAX: Final = 4_000


def agreement(prompt: Prompt, one: str, other: str) -> float:
    """1.0: the same, 0.0: not at all.

    Sums are compared by their result, choices by the letter, JSON by value, all else by the words
    they share (F1 of their counts, as SQuAD does).
    """
    if prompt.kind == "arithmetic":
        first, second = result(one), result(other)
        return float(first is not None and first == second)
    if prompt.kind == "choice" and (chosen := check.letter(one)) is not None:
        return float(chosen == check.letter(other))
    if check.asks_json(prompt.text):
        try:
            return float(check.find_json(one) == check.find_json(other))
        except ValueError:
            return 0.0
    return _shared(one, other)


def _shared(one: str, other: str) -> float:
    first, second = _counted(one), _counted(other)
    shared = (first & second).total()
    return 2 * shared / (first.total() + second.total()) if shared else 0.0


def _counted(text: str) -> Counter[str]:
    words = _WORD.findall(text[: check.READ_MAX].lower())[:_WORDS_MAX]
    return Counter(word for word in words if word not in _ARTICLES)
