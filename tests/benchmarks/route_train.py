"""Train the router's weights, or cross-validate how they are trained.

    python -m tests.benchmarks.route_train DATA GSM8K OUT
    python -m tests.benchmarks.route_train DATA GSM8K --seeds 10

DATA holds, as gzipped JSON lines {"prompt", "domain", "scores": {model: 0..1}}:

- mmlu_gold: 1,581 MMLU questions with the outcomes of mixtral-8x7b and gpt-4-1106 (RouteLLM,
  Apache-2.0; the questions MIT). The only labels of the head for multiple choice.
- llmrouter_9models: 14 tasks with the outcomes of nine models (LLMRouter, MIT). How the gain
  follows from the length of a sum, and the mean gain of the other kinds.

GSM8K is `grade_school_math/data/train.jsonl` of openai/grade-school-math (MIT): questions and
reference solutions, of which the length says how hard a sum is.

Nothing else is read: other sets that are at hand do not say that they may be passed on.
"""

from __future__ import annotations

import argparse
import gzip
import json
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nostrllm.core.prompt import BUCKETS, FEATURES, GENERAL, Kind, hashed, read, structure
from nostrllm.core.router import DEVIATIONS_MAX
from tests.benchmarks.routing import apgr

Array = Any  # shapes are said in words; the element types add nothing here

WEAK = ("mistral-7b-instruct-v0.3", "llama3-chatqa-1.5-8b", "codegemma-7b")
STRONG = (
    "llama-3.1-8b-instruct",
    "gemma-2-9b-it",
    "qwen2.5-7b-instruct",
    "llama-3.1-nemotron-51b-instruct",
    "llama-3.3-nemotron-super-49b-v1",
)
SUMS = ("llmrouter/gsm8k", "llmrouter/agentverse-mgsm")
FORMAT_NOTE = "\nAfter careful thought, put you final answer in \\boxed{...}."

# Chosen once, by the mean over the seeds of repeated cross-validation on mmlu_gold.
LANDMARKS, WIDTH, JITTER = 160, 1.0, 1e-3
RIDGE = 6.0
#: How much of a question's label is its subject's mean gain, which so many questions shrink.
SUBJECT_SHARE, SUBJECT_PRIOR = 0.5, 15.0
# For GSM8K by how well they rank the difficulty that seven other models find in its questions.
STRUCTURE_SHARE, LENGTH_SHARE, WORDS_RIDGE = 0.1, 0.5, 0.5

# Gains of prompts for which no labels were found that carry over: by hand. Per standard deviation.
PRIOR_LENGTH, PRIOR_MATHS, PRIOR_REASON, PRIOR_LINES = 0.02, 0.02, 0.02, 0.01
AT_LENGTH, AT_MATHS, AT_REASON, AT_LINES = 0, 21, 22, 12


@dataclass
class Set:
    """Prompts as features: z standardised (n × FEATURES), x hashed words (n × BUCKETS)."""

    rows: list[dict[str, Any]]
    raw: Array
    x: Array

    def take(self, which: Array) -> Set:
        return Set([self.rows[i] for i in which], self.raw[which], self.x[which])


def load(folder: Path, name: str) -> list[dict[str, Any]]:
    with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def prepare(rows: list[dict[str, Any]]) -> Set:
    prompts = [read(row["prompt"].removesuffix(FORMAT_NOTE)) for row in rows]
    x = np.zeros((len(rows), BUCKETS), dtype=np.float32)
    for i, prompt in enumerate(prompts):
        found = hashed(prompt)
        x[i, list(found)] = list(found.values())
    return Set(rows, np.array([structure(prompt) for prompt in prompts]), x)


def outcome(rows: list[dict[str, Any]], models: tuple[str, ...]) -> Array:
    """The mean quality of those models, per row."""
    return np.array(
        [
            np.mean([row["scores"][model] for model in models if model in row["scores"]])
            for row in rows
        ]
    )


def gold_gain(rows: list[dict[str, Any]]) -> Array:
    strong, weak = ("gpt-4-1106-preview",), ("mixtral-8x7b-instruct",)
    return outcome(rows, strong) - outcome(rows, weak)


@dataclass
class Scale:
    mean: Array
    scale: Array

    @classmethod
    def of(cls, raw: Array) -> Scale:
        deviation = raw.std(0)
        usable = deviation > 1e-6
        return cls(raw.mean(0), np.where(usable, 1 / np.where(usable, deviation, 1), 0.0))

    def z(self, raw: Array) -> Array:
        return np.clip((raw - self.mean) * self.scale, -DEVIATIONS_MAX, DEVIATIONS_MAX)


def near(a: Array, b: Array) -> Array:
    square = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T
    return np.exp(-np.maximum(square, 0) / (WIDTH * GENERAL))


def landmarks(z: Array, seed: int = 0) -> Array:
    """The centres of a few rounds of k-means."""
    centres = z[np.random.default_rng(seed).permutation(len(z))[:LANDMARKS]]
    for _ in range(20):
        nearest = near(z, centres).argmax(1)
        centres = np.array(
            [
                z[nearest == k].mean(0) if (nearest == k).any() else centres[k]
                for k in range(len(centres))
            ]
        )
    return centres


def by_subject(gain: Array, rows: list[dict[str, Any]]) -> Array:
    """The mean gain of each question's subject, drawn towards the mean of all."""
    _, which = np.unique([row["domain"] for row in rows], return_inverse=True)
    total, count = np.bincount(which, gain - gain.mean()), np.bincount(which)
    return (total / (count + SUBJECT_PRIOR))[which]


def choice_head(train: Set) -> dict[str, Any]:
    """Kernel ridge on landmarks and words; the labels are smoothed by subject."""
    scale, gain = Scale.of(train.raw), gold_gain(train.rows)
    z = scale.z(train.raw)[:, :GENERAL]
    centres = landmarks(z).round(2)
    between = near(centres, centres) + JITTER * np.eye(len(centres))
    close = near(z, centres)
    kernel = close @ np.linalg.solve(between, close.T) + train.x @ train.x.T
    smooth = SUBJECT_SHARE * by_subject(gain, train.rows)
    label = (1 - SUBJECT_SHARE) * (gain - gain.mean()) + smooth
    dual = np.linalg.solve(kernel + RIDGE * np.eye(len(gain)), label)
    return {
        "bias": float(gain.mean()),
        **vars(scale),
        "linear": np.zeros(FEATURES),
        "landmarks": centres,
        "pulls": np.linalg.solve(between, close.T @ dual),
        "width": WIDTH,
        "words": train.x.T @ dual,
    }


def ridge(a: Array, y: Array, alpha: float) -> Array:
    """Ridge regression without intercept."""
    return np.linalg.solve(a.T @ a + alpha * np.eye(a.shape[1]), a.T @ y)


@dataclass
class Length:
    """How long a sum is, as linear weights."""

    scale: Scale
    linear: Array
    words: Array

    @classmethod
    def of(cls, solved: Set) -> Length:
        """How long the solution will be, by the prompt's structure, its words, and its length.

        A solution's length is the sum of its lines and its characters, each standardised.
        """
        scale = Scale.of(solved.raw)
        z, y = scale.z(solved.raw), sum(standard(one) for one in solution_sizes(solved.rows))
        plain = ridge(z, y, 30.0)
        both = np.hstack([STRUCTURE_SHARE * z, solved.x]).astype(np.float32)
        joint = ridge_by_gradient(both, y, WORDS_RIDGE)
        spread = (both @ joint).std()
        length = LENGTH_SHARE * np.eye(FEATURES)[AT_LENGTH] / z[:, AT_LENGTH].std()
        linear = length + plain / (z @ plain).std() + STRUCTURE_SHARE * joint[:FEATURES] / spread
        return cls(scale, linear, joint[FEATURES:] / spread)


def standard(values: Array) -> Array:
    return (values - values.mean()) / values.std()


def solution_sizes(rows: list[dict[str, Any]]) -> tuple[Array, Array]:
    """Lines, and the logarithm of characters, of each reference solution without its result."""
    bodies = [row["answer"].partition("####")[0].strip() for row in rows]
    lines = np.array([len(body.splitlines()) for body in bodies], dtype=float)
    return lines, np.log([len(body) + 1 for body in bodies])


def ridge_by_gradient(a: Array, y: Array, alpha: float, rounds: int = 200) -> Array:
    """Ridge regression without intercept, by conjugate gradients: `a` is wide."""
    weights = np.zeros(a.shape[1], dtype=np.float32)
    rest = a.T @ y.astype(np.float32)
    step, size = rest.copy(), float(rest @ rest)
    first = size
    for _ in range(rounds):
        turned = a.T @ (a @ step) + alpha * step
        stride = size / float(step @ turned)
        weights += stride * step
        rest -= stride * turned
        size, before = float(rest @ rest), size
        if size < 1e-8 * first:
            break
        step = rest + size / before * step
    return weights.astype(float)


def arithmetic_head(length: Length, sums: Set) -> dict[str, Any]:
    """Gain by how long the sum is; the rest is learned on top, strongly regularised."""
    z, weak, strong = length.scale.z(sums.raw), outcome(sums.rows, WEAK), outcome(sums.rows, STRONG)
    target = (strong - weak + 1 - weak) / 2
    target = target - target.mean()
    base = z @ length.linear + sums.x @ length.words
    base = base - base.mean()
    slope = float(base @ target / (base @ base))
    rest = ridge(z - z.mean(0), target - slope * base, 3_000.0)
    linear, words = slope * length.linear + rest, slope * length.words
    own = np.array([row["domain"] == SUMS[0] for row in sums.rows])
    bias = float((strong - weak - z @ linear - sums.x @ words)[own].mean())
    return {"bias": bias, **vars(length.scale), "linear": linear, "words": words}


def prior_head(seen: Set) -> dict[str, Any]:
    """The mean gain, and a prior by hand: longer, mathematical, explaining prompts gain more."""
    gain = outcome(seen.rows, STRONG) - outcome(seen.rows, WEAK)
    linear = np.zeros(FEATURES)
    linear[[AT_LENGTH, AT_MATHS, AT_REASON, AT_LINES]] = (
        PRIOR_LENGTH,
        PRIOR_MATHS,
        PRIOR_REASON,
        PRIOR_LINES,
    )
    return {"bias": float(gain.mean()), **vars(Scale.of(seen.raw)), "linear": linear}


def gains(head: dict[str, Any], prompts: Set) -> Array:
    """What `Head.gain` computes, for many prompts at once."""
    z = Scale(head["mean"], head["scale"]).z(prompts.raw)
    found = head["bias"] + z @ head["linear"]
    if "pulls" in head:
        found = found + near(z[:, :GENERAL], head["landmarks"]) @ head["pulls"]
    return found + prompts.x @ head["words"] if "words" in head else found


def packed(head: dict[str, Any]) -> dict[str, Any]:
    """As JSON, the words in 16 bits."""
    document: dict[str, Any] = {}
    for name, value in head.items():
        if name == "words":
            step = float(np.abs(value).max()) / 32_767
            document["words_step"] = step
            raw = np.round(value / step).astype("<i2").tobytes()
            document["words"] = b64encode(raw).decode()
        else:
            document[name] = np.round(value, 5).tolist()
    return document


def folds(prompts: Set, seeds: int, count: int = 5) -> list[float]:
    """APGR of each repetition of cross-validation on mmlu_gold."""
    gain, found = gold_gain(prompts.rows), []
    for seed in range(seeds):
        order = np.random.default_rng(1_000 + seed).permutation(len(gain))
        predicted = np.zeros(len(gain))
        for k in range(count):
            held, rest = order[k::count], np.delete(order, np.s_[k::count])
            predicted[held] = gains(choice_head(prompts.take(rest)), prompts.take(held))
        found.append(apgr(predicted.tolist(), gain.tolist()))
    return found


def sum_folds(solved: Set, sums: Set, seeds: int, count: int = 10) -> list[float]:
    """APGR of each repetition on the GSM8K questions of llmrouter_9models.

    Solutions of those questions are not learned from.
    """
    held_out = {row["prompt"] for row in sums.rows}
    rest_of = [i for i, row in enumerate(solved.rows) if row["prompt"] not in held_out]
    length = Length.of(solved.take(rest_of))
    gain = outcome(sums.rows, STRONG) - outcome(sums.rows, WEAK)
    own = np.array([row["domain"] == SUMS[0] for row in sums.rows])
    found = []
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(gain))
        predicted = np.zeros(len(gain))
        for k in range(count):
            held, rest = order[k::count], np.delete(order, np.s_[k::count])
            predicted[held] = gains(arithmetic_head(length, sums.take(rest)), sums.take(held))
        found.append(apgr(predicted[own].tolist(), gain[own].tolist()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("gsm8k", type=Path)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--seeds", type=int, default=0, help="cross-validate so many times")
    asked = parser.parse_args()
    gold = prepare(load(asked.data, "mmlu_gold"))
    with asked.gsm8k.open(encoding="utf-8") as file:
        solved = prepare([{**row, "prompt": row["question"]} for row in map(json.loads, file)])
    others = load(asked.data, "llmrouter_9models")
    sums = prepare([row for row in others if row["domain"] in SUMS])
    if asked.seeds:
        for name, found in (
            ("mmlu_gold", folds(gold, asked.seeds)),
            ("llmrouter/gsm8k", sum_folds(solved, sums, asked.seeds)),
        ):
            print(f"{name}: APGR {np.mean(found):.4f} ± {np.std(found):.4f} over {len(found)}")
    if asked.out is None:
        return
    of: dict[Kind, Set] = {
        kind: prepare([row for row in others if read(row["prompt"]).kind == kind])
        for kind in ("code", "open")
    }
    heads: dict[Kind, dict[str, Any]] = {
        "choice": choice_head(gold),
        "arithmetic": arithmetic_head(Length.of(solved), sums),
        "code": prior_head(of["code"]),
        "open": prior_head(of["open"]),
    }
    document = {
        "sources": "RouteLLM (Apache-2.0), MMLU, GSM8K, LLMRouter (MIT); see docs/routing.md",
        "heads": {kind: packed(head) for kind, head in heads.items()},
    }
    asked.out.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
