"""How likely an answer is wrong, by what can be checked without another model.

Every finding adds to the log-odds. The weights are likelihood ratios: how often a finding is made
in right answers was counted on the reference solutions of GSM8K's training questions; how often in
wrong ones is a judgement. What a longer working adds is a logistic regression of the failures of
small models (LLMRouter's outcomes) on the reference solutions. See docs/routing.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import exp, log
from typing import Any, Final, Literal

from nostrllm.core import answer as check
from nostrllm.core.prompt import Kind, Prompt
from nostrllm.core.working import Working, up_to_result, work

Profile = Literal["cheapest", "fastest", "balanced", "trusted", "quality"]

#: From this score on an answer is not taken but asked for again, of a stronger model.
ESCALATE_FROM: Final[Mapping[Profile, float]] = {
    "cheapest": 0.9,
    "fastest": 0.9,
    "balanced": 0.6,
    "trusted": 0.5,
    "quality": 0.35,
}

#: Log-odds of a wrong answer before anything is looked at.
_BEFORE: Final[Mapping[Kind, float]] = {
    "arithmetic": -0.6,
    "choice": -0.9,
    "code": -0.8,
    "open": -1.2,
}
#: Log-odds per unit by which the prompt's expected gain differs from the usual one of its kind.
_PER_GAIN: Final = 4.0
_GAIN_OFF_MAX: Final = 0.3
#: An answer with this is the working of a sum, whatever the question looked like.
_RESULT: Final = "\n####"
_USUAL_GAIN: Final[Mapping[Kind, float]] = {
    "arithmetic": 0.37,
    "choice": 0.12,
    "code": 0.25,
    "open": 0.1,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason, with a stable code, and what it adds to the log-odds."""

    code: str
    weight: float


@dataclass(frozen=True, slots=True)
class Judged:
    """score: probability that the answer is wrong, 0..1, by these findings."""

    score: float
    findings: tuple[Finding, ...]

    def escalates(self, profile: Profile) -> bool:
        """Is a stronger model to be asked?"""
        return self.score >= ESCALATE_FROM[profile]


def judge(
    prompt: Prompt,
    question: str,
    answer: str,
    *,
    gain: float | None = None,
    schema: Mapping[str, Any] | None = None,
) -> Judged:
    """Judge an answer; `question` is the whole prompt, `gain` what the router expects of it."""
    if prompt.kind in ("open", "code") and _RESULT in answer:
        prompt = replace(prompt, kind="arithmetic")
    if prompt.kind == "arithmetic":
        answer = up_to_result(answer)
    findings = tuple(_findings(prompt, question, answer, schema))
    off = 0.0 if gain is None else gain - _USUAL_GAIN[prompt.kind]
    hard = _PER_GAIN * max(-_GAIN_OFF_MAX, min(_GAIN_OFF_MAX, off))
    odds = _BEFORE[prompt.kind] + hard + sum(one.weight for one in findings)
    return Judged(1.0 / (1.0 + exp(-odds)), findings)


def _findings(
    prompt: Prompt, question: str, answer: str, schema: Mapping[str, Any] | None
) -> Iterator[Finding]:
    if check.is_empty(answer):
        yield Finding("empty", 8.0)
        return
    yield from _manners(question, answer)
    if schema is not None or check.asks_json(question):
        yield from _json(answer, schema)
    if prompt.kind == "arithmetic":
        yield from _sum(work(question, answer), question)
    elif prompt.kind == "choice":
        yield from _choice(prompt, answer)
    elif check.broken_code(question, answer):
        yield Finding("code-broken", 3.0)


def _manners(question: str, answer: str) -> Iterator[Finding]:
    """What no good answer does, whatever was asked."""
    if check.is_refusal(answer):
        yield Finding("refusal", 3.0)
    if check.is_cut_off(answer):
        yield Finding("cut-off", 1.5)
    if (said := check.repetition(answer)) > 0.2:
        yield Finding("repetition", 5.0 * said)
    if check.is_other_script(question, answer):
        yield Finding("language", 2.0)
    if hedged := check.hedges(answer):
        yield Finding("hedging", min(1.5, 0.6 + 0.3 * hedged))


def _json(answer: str, schema: Mapping[str, Any] | None) -> Iterator[Finding]:
    try:
        value = check.find_json(answer)
    except ValueError:
        yield Finding("json-missing", 2.5)
        return
    if schema is not None and not check.fits_schema(value, schema):
        yield Finding("schema", 4.0)


def _choice(prompt: Prompt, answer: str) -> Iterator[Finding]:
    chosen = check.letter(answer)
    if chosen is None:
        said = answer.lower()
        if not any(option.lower().strip() in said for option in prompt.options if option.strip()):
            yield Finding("no-option", 2.0)
    elif ord(chosen) - ord("A") >= len(prompt.options):
        yield Finding("option-unknown", 4.0)


def _sum(seen: Working, question: str) -> Iterator[Finding]:
    """A long working fails more often, whatever it says; then what is odd in it."""
    chars = max(-1.0, min(1.5, log((seen.chars + 1) / 300)))
    yield Finding("length", 0.22 * (min(seen.steps, 9) - 3) + 0.5 * chars)
    yield from _result(seen, question)
    if seen.wrong:
        yield Finding("sum-wrong", 2.3 if seen.wrong == 1 else 2.8)
    if seen.odd:
        yield Finding("step-implausible", 1.6)
    if seen.foreign:
        yield Finding("figure-foreign", 0.9 if seen.foreign == 1 else 1.6)
    if seen.unused:
        yield Finding("figure-unused", min(1.0, 0.15 + 0.25 * seen.unused))
    if seen.algebra:
        yield Finding("algebra", 0.7)
    if not seen.steps:
        yield Finding("no-working", 0.7)


def _result(seen: Working, question: str) -> Iterator[Finding]:
    """Is there a result, is it what was computed, can it be?"""
    if seen.final is None:
        yield Finding("no-result", 3.0)
        return
    if not seen.marked:
        yield Finding("result-unmarked", 1.2)
    if seen.steps and not seen.fits_last:
        yield Finding("result-not-computed", 0.9 if seen.fits_any else 1.4)
    if seen.final < 0:
        yield Finding("result-negative", 2.5)
    elif seen.final.denominator > 1:
        counted = "how many" in question.lower()
        yield Finding("result-fraction", 2.2 if counted else 1.5)
    elif seen.final == 0:
        yield Finding("result-zero", 0.8)
    if seen.given:
        yield Finding("result-given", 0.5)
