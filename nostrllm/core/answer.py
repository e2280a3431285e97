"""Checks that any answer can fail: empty, refusing, cut off, repeating itself, in another script.

Each is a pure function of texts, bounded in time, and never runs anything: code is parsed, not
executed.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

#: At most so many characters of an answer are looked at.
READ_MAX: Final = 50_000
_CODE_MAX: Final = 20_000
_WORDS_MAX: Final = 4_000
_DEPTH_MAX: Final = 64

_REFUSAL: Final = re.compile(
    r"\bi(?:['’]m| am) (?:sorry|unable|not able)|\bas an ai\b"
    r"|\bi (?:can(?:no|['’])t|won['’]t) (?:help|assist|do|answer|provide|comply)"
    r"|\bi do(?:n['’]t| not) have (?:access|enough|the ability)"
    r"|\b(?:es tut mir leid|je suis désolé|lo siento)",
    re.I,
)
_HEDGE: Final = re.compile(
    r"\b(?:approximately|roughly|assum(?:e|ing|ption)|cannot|can't"
    r"|not (?:possible|enough|clear|sure|given)|impossible|unclear|insufficient|need more"
    r"|would need|let's say|mistake|unknown|apologi[sz]e|i think|maybe|perhaps|might be"
    r"|doesn't make sense|wait(?=,))\b",
    re.I,
)
_LETTER: Final = re.compile(
    r"(?:\banswer(?: is)?:?\s*\**|\\boxed\{|\boption\s+|\bchoice\s+)[\s(\"'*]*([A-J])\b(?!')"
    r"|^\W{0,3}([A-J])(?:[\s).:*]|$)",
    re.I | re.M,
)
_FENCE: Final = re.compile(r"```[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:```|\Z)", re.S)
_ENDS: Final = tuple(".!?…。！？)]}\"'”’»`*|:;>")
_LATIN: Final = re.compile(r"[A-Za-zÀ-ɏ]")
_OTHER: Final = re.compile(r"[^\W\d_A-Za-zÀ-ɏ]")
_ASKS_JSON: Final = re.compile(r"\bjson\b", re.I)
_ASKS_SCRIPT: Final = re.compile(r"translat|\bin (?:[A-Z][a-z]+)\b|language|übersetz|tradu", re.I)


def is_empty(answer: str) -> bool:
    """Nothing but white space and signs; empty JSON is something."""
    return re.search(r"[\w\[{]", answer[:READ_MAX]) is None


def is_refusal(answer: str) -> bool:
    """Does it begin by declining?"""
    return _REFUSAL.search(answer[:400]) is not None


def hedges(answer: str) -> int:
    """How many doubting words."""
    return len(_HEDGE.findall(answer[:READ_MAX]))


def is_cut_off(answer: str) -> bool:
    """Does a long answer end in the middle of a sentence, or any in an open code block?"""
    text = answer[-READ_MAX:].rstrip()
    if text.count("```") % 2:
        return True
    last = text.rpartition("\n")[2]
    return len(text) > 200 and len(last.split()) > 5 and not text.endswith(_ENDS)


def repetition(answer: str) -> float:
    """The share of an answer's runs of eight words that were said before, 0..1."""
    words = answer[:READ_MAX].lower().split()[:_WORDS_MAX]
    runs = Counter(zip(*(words[i:] for i in range(8)), strict=False))
    total = sum(runs.values())
    return (total - len(runs)) / total if total else 0.0


def is_other_script(prompt: str, answer: str) -> bool:
    """Was Latin script answered in another, or the reverse, though no translation was asked?"""
    if _ASKS_SCRIPT.search(prompt[:READ_MAX]):
        return False
    asked, said = _latin_share(prompt), _latin_share(answer)
    return asked is not None and said is not None and abs(asked - said) > 0.6


def _latin_share(text: str) -> float | None:
    text = text[:2_000]
    latin, other = len(_LATIN.findall(text)), len(_OTHER.findall(text))
    return latin / (latin + other) if latin + other > 20 else None


def letter(answer: str) -> str | None:
    """The option an answer chooses: the last it names as such."""
    found = [named or alone for named, alone in _LETTER.findall(answer[:READ_MAX])]
    return found[-1].upper() if found else None


def asks_json(prompt: str) -> bool:
    """Does a prompt want JSON?"""
    return _ASKS_JSON.search(prompt[:READ_MAX]) is not None


def find_json(answer: str) -> Any:
    """The JSON value in an answer, fenced or bare; ValueError when there is none."""
    fenced = [body for name, body in _FENCE.findall(answer[:READ_MAX]) if name in ("json", "")]
    for text in (*fenced, answer[:READ_MAX]):
        start = min((at for at in map(text.find, "{[") if at >= 0), default=0)
        try:
            return json.JSONDecoder().raw_decode(text[start:].strip())[0]
        except (ValueError, RecursionError):
            continue
    raise ValueError("no JSON in the answer")


_TYPES: Final[dict[str, type | tuple[type, ...]]] = {
    "object": dict,
    "array": list,
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "null": type(None),
}


def fits_schema(value: Any, schema: Mapping[str, Any], depth: int = _DEPTH_MAX) -> bool:
    """JSON Schema's type, enum, required, properties and items, `depth` levels down.

    Other keywords are passed over, and so is what is no schema.
    """
    kinds, enum = schema.get("type", []), schema.get("enum")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if kinds and not any(_is_type(value, kind) for kind in kinds):
        return False
    if isinstance(enum, list) and value not in enum:
        return False
    if depth and isinstance(value, dict):
        return _has_fields(value, schema, depth)
    items = schema.get("items")
    if depth and isinstance(value, list) and isinstance(items, dict):
        return all(fits_schema(one, items, depth - 1) for one in value)
    return True


def _has_fields(value: dict[str, Any], schema: Mapping[str, Any], depth: int) -> bool:
    required, wanted = schema.get("required"), schema.get("properties")
    if isinstance(required, list) and not all(name in value for name in required):
        return False
    return not isinstance(wanted, dict) or all(
        fits_schema(value[name], one, depth - 1)
        for name, one in wanted.items()
        if name in value and isinstance(one, dict)
    )


def _is_type(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES.get(str(kind), object))


def broken_code(prompt: str, answer: str) -> bool | None:
    """Is Python among the code that no parser takes? None: there is no Python to judge."""
    blocks = [
        body
        for name, body in _FENCE.findall(answer[:READ_MAX])
        if name.lower() in ("python", "py", "python3")
        or (not name and ("python" in prompt[:READ_MAX].lower() or "def " in body))
    ]
    if not blocks and answer.lstrip().startswith(("def ", "import ", "from ", "class ")):
        blocks = [answer]
    return any(not _parses(body[:_CODE_MAX]) for body in blocks) if blocks else None


def _parses(code: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ast.parse(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
    return True
