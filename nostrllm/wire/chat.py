"""The plain-text dialect of a person in a DM ⇄ the same things our client says in JSON.

A line that begins with `/` is a command; a Cashu token anywhere in the text pays; what is left is
the prompt. Everything a provider writes back is made here too, so that its tone is in one place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from nostrllm.errors import RemoteError
from nostrllm.wire.amount import per_1000, sats
from nostrllm.wire.announcement import ModelOffer
from nostrllm.wire.nip19 import parse_profile
from nostrllm.wire.token import find_tokens

#: A person's message of more characters is refused.
TEXT_CHARS_MAX: Final = 30_000

#: An answer is cut into messages of at most this many characters.
MESSAGE_CHARS_MAX: Final = 6_000

#: 21 million coins are 2.1 × 10¹⁵ sat.
SATS_DIGITS_MAX: Final = 16
UNIT_WORDS: Final = ("", "sat", "sats")

COMMANDS: Final = {
    "help": "this text",
    "models": "what can be asked, and what it costs",
    "price": "[model]: the price in full",
    "model": "<id>: choose the model of this conversation",
    "balance": "what is left in your account",
    "topup": "<token>: put a token into your account; [sat]: a payment request for that; "
    "<sat> lightning: a Lightning invoice",
    "qr": "your last payment request in the form for a QR code",
    "refund": "your balance back as a token; <invoice>: a Lightning invoice paid from it",
    "change": "the last change once more",
    "allow": "<npub> <sat> [hour|day|week|month]: let another key spend from your account; "
    "alone: who may",
    "disallow": "<npub>: take that back",
    "plans": "plans you can buy, and yours",
    "subscribe": "<plan> [renew]: buy a plan from your balance",
    "unsubscribe": "end your plan; what is not used comes back",
    "cancel": "stop the answer that is being written",
    "status": "how your last question stands",
    "new": "forget this conversation",
    "receipt": "the receipt of your last answer",
    "go": "take up the message that came late",
}


@dataclass(frozen=True, slots=True)
class Chat:
    """A person's message, taken apart.

    `command` is None for a question, "" for a command we do not know. `tokens` are as written,
    unchecked; `prompt` has every token and secret cut out.
    """

    command: str | None
    argument: str
    tokens: tuple[str, ...]
    prompt: str


def parse_chat(text: str) -> Chat:
    """Any text is a chat message."""
    tokens, rest = find_tokens(text[:TOKEN_TEXT_CHARS_MAX])
    rest = rest.strip()
    if not rest.startswith("/"):
        return Chat(None, "", tuple(tokens), rest)
    words = rest[1:].split(maxsplit=1)
    name = words[0].lower() if words else ""
    argument = words[1] if len(words) > 1 else ""
    known = name if name in COMMANDS else ""
    return Chat(known, argument.strip(), tuple(tokens), "")


def lightning_amount(argument: str) -> int | None:
    """The sat of `/topup 1000 lightning`; None for any other argument."""
    found = _LIGHTNING.fullmatch(argument.lower())
    return None if found is None else int(found[1] or found[2])


_LIGHTNING: Final = re.compile(
    r"([0-9]{1,15})\s*(?:sats?)?\s+lightning|lightning\s+([0-9]{1,15})\s*(?:sats?)?"
)


def invoice_in(argument: str) -> str:
    """What stands for an invoice behind `/refund`, without the scheme that wallets copy with it."""
    return argument.strip().removeprefix("lightning:").removeprefix("LIGHTNING:")


#: How long a person's words for a period are, in seconds.
PERIODS: Final = {"hour": 3_600, "day": 86_400, "week": 604_800, "month": 30 * 86_400}


def parse_key(text: str) -> str:
    """A public key as a person writes it: npub, nprofile or hex. Raises RemoteError."""
    bare = text.strip().removeprefix("nostr:")
    if re.fullmatch(r"[0-9a-f]{64}", bare):
        return bare
    return parse_profile(bare).pubkey


def parse_allowance(text: str) -> tuple[str, int, int]:
    """Key, sat, and the period's length in seconds (0: for ever). Raises RemoteError."""
    words = text.split()
    well = 2 <= len(words) <= 3 and words[1].isdecimal() and len(words[1]) <= SATS_DIGITS_MAX
    if not well or (words[2:] and words[2].lower() not in PERIODS):
        raise RemoteError(
            "write /allow, a key, so many sat, and hour, day, week or month if wished"
        )
    period_s = PERIODS[words[2].lower()] if words[2:] else 0
    return parse_key(words[0]), int(words[1]), period_s


#: A token is long; a text with one may be longer than a question.
TOKEN_TEXT_CHARS_MAX: Final = 160_000


def split_answer(text: str, chars_max: int = MESSAGE_CHARS_MAX) -> list[str]:
    """The answer in messages of at most `chars_max`, cut at paragraph ends, numbered if several."""
    pieces: list[str] = []
    rest = text.strip()
    room = chars_max - 10  # for the numbering
    while len(rest) > (room if pieces else chars_max):
        cut = max(rest.rfind(mark, room // 2, room) for mark in ("\n\n", "\n", ". ", " "))
        cut = cut if cut > 0 else room
        pieces.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    if not pieces:
        return [rest]
    pieces.append(rest)
    return [f"({n}/{len(pieces)})\n{piece}" for n, piece in enumerate(pieces, 1)]


def help_text(name: str, mints: tuple[str, ...], example_msat: int) -> str:
    """The answer to /help."""
    lines = [
        f"{name} answers questions for ecash. Write a question and paste a Cashu token into the "
        f"same message; {sats(example_msat)} or more is a good start. You get the answer, then "
        "the change as a token.",
        "",
        *(f"/{name} {text}" for name, text in COMMANDS.items()),
        "",
        "Tokens of " + ", ".join(mints) + ".",
    ]
    return "\n".join(lines)


def models_text(models: tuple[ModelOffer, ...], chosen: str) -> str:
    """The answer to /models."""
    lines = [
        f"{'→' if model.id == chosen else '·'} {model.id}: {model.name or model.id}, "
        f"{model.context} tokens of context; {price_line(model)}"
        for model in models
    ]
    return "\n".join([*lines, "", "Choose with /model <id>."])


def price_line(model: ModelOffer) -> str:
    """One model's price in one line."""
    price = model.price
    return f"{per_1000(price.input)} per 1,000 tokens in, {per_1000(price.output)} out" + (
        f", {sats(price.request)} per question" if price.request else ""
    )


def payment_text(model: ModelOffer, mints: tuple[str, ...], estimate_msat: int) -> str:
    """What an unpaid question is told: the price and how to pay."""
    coins = suggested_coins(estimate_msat)
    return (
        f"This question to {model.id} will cost about {sats(estimate_msat)} "
        f"({price_line(model)}). It has not run yet.\n\n"
        f"To pay, send it again with a Cashu token of {coins} sat or more anywhere in the text, "
        "for example:\n\n"
        "What is the capital of France? cashuB…\n\n"
        "Or let a Cashu wallet pay the request in the next message: I answer once it is paid, and "
        "what is left stays in your account.\n\n"
        f"Tokens of {', '.join(mints)} (unit sat). What you do not use comes back as change. "
        "Or fill your account once with /topup <token>. /help tells more."
    )


def suggested_coins(estimate_msat: int) -> int:
    """A round token for this estimate: the next power of two of sats, at least 8."""
    return max(8, 1 << (max(1, estimate_msat // 1_000)).bit_length())


def missing_text(why: str, code: str) -> str:
    """What a question is told that the account cannot pay; a payment request follows."""
    return (
        f"{why}. Nothing was taken. [{code}]\n\n"
        "A Cashu wallet can pay what is missing by the request in the next message: I answer once "
        "it is paid. Or send /topup <token>, and then your question again."
    )


def topup_text(amount: int) -> str:
    """The answer to /topup without a token; a payment request follows. `amount` sat, 0 for any."""
    much = f"{amount} sat" if amount else "as much as you like"
    return (
        f"To put {much} into your account, let a Cashu wallet pay the request in the next message. "
        "Or write /topup and paste a token behind it."
    )


def parse_sats(text: str) -> int:
    """An amount that a person wrote, in sat. Raises RemoteError."""
    number, _, unit = text.strip().lower().partition(" ")
    if not number.isdecimal() or len(number) > SATS_DIGITS_MAX or unit.strip() not in UNIT_WORDS:
        raise RemoteError("write the amount in whole sat, as in /topup 100")
    if not int(number):
        raise RemoteError("write an amount of 1 sat or more, as in /topup 100")
    return int(number)
