"""What our client and a provider say to each other inside gift wraps: rumor kind 25421, JSON.

    client   → query, order, topup, refund, cancel, ack, outputs
    provider → accepted, refused, result, settled, answer

Each message states `v` and `type`. An order's id is the id of the rumor that carries it, which
makes it the idempotency key everywhere (docs/protocol.md).
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, TypeAdapter, model_validator

from nostrllm.errors import CODES, RemoteError
from nostrllm.wire.body import AnyRequest as AnyRequest
from nostrllm.wire.body import Body as Body
from nostrllm.wire.body import ChatMessage as ChatMessage
from nostrllm.wire.body import ChatRequest as ChatRequest
from nostrllm.wire.body import CompletionRequest as CompletionRequest
from nostrllm.wire.body import EmbeddingRequest as EmbeddingRequest
from nostrllm.wire.event import Event, parse_event
from nostrllm.wire.message import (
    MSAT_MAX,
    Hex32,
    Line,
    MintUrl,
    ModelId,
    RelayUrl,
    Wire,
    parse,
)
from nostrllm.wire.token import PROOFS_MAX

TOKEN_CHARS_MAX: Final = 128 * 1024
INVOICE_CHARS_MAX: Final = 4_096
OUTPUTS_MAX: Final = 64
REPLY_RELAYS_MAX: Final = 3

Msat = Annotated[int, Field(ge=0, le=MSAT_MAX)]
Seconds = Annotated[int, Field(ge=0, le=1 << 40)]
InvoiceText = Annotated[str, Field(max_length=INVOICE_CHARS_MAX)]
PlanId = Annotated[str, Field(pattern=r"^[a-z0-9._-]{1,64}$")]
TokenText = Annotated[str, Field(max_length=TOKEN_CHARS_MAX)]
KeysetId = Annotated[str, Field(pattern=r"^(00[0-9a-f]{14}|01[0-9a-f]{64})$")]
Point = Annotated[str, Field(pattern=r"^0[23][0-9a-f]{64}$")]
Scalar = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Signature = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


class ReplyTo(Wire):
    """Where the client listens: a key made for this order alone, and its relays."""

    key: Hex32
    relays: list[RelayUrl] = Field(min_length=1, max_length=REPLY_RELAYS_MAX)


class TokenPayment(Wire):
    """Payment A: a plain Cashu token, swapped before any work."""

    kind: Literal["token"] = "token"
    token: TokenText


class Output(Wire):
    """A blinded message that the client made, for a mint to sign (NUT-00)."""

    amount: int = Field(ge=1, le=1 << 62)
    id: KeysetId
    B_: Point


class LockedPayment(Wire):
    """Payment B: a token that only the provider can spend until its locktime (NUT-11).

    He works on it at once and swaps it afterwards. `outputs` are the client's own, of which he has
    the mint sign those that make up the change.
    """

    kind: Literal["locked"] = "locked"
    token: TokenText
    outputs: list[Output] = Field(max_length=OUTPUTS_MAX)


class AccountPayment(Wire):
    """Payment C: from the balance of the key that wrote the order, or of another that allows it."""

    kind: Literal["account"] = "account"
    of: Hex32 | None = None


Payment = Annotated[TokenPayment | LockedPayment | AccountPayment, Field(discriminator="kind")]


class _FromClient(Wire):
    v: Literal[1] = 1
    reply: ReplyTo


class Order(_FromClient):
    """Buy one answer.

    `price` is the id of the price-list event the client pins; `ceiling_msat` is all he will pay,
    fees included; `deadline` bounds the first token and `end_by` the last; `chunk_ms` None means no
    stream; `c` = sha256(reviewer key ‖ salt) binds the receipt to one reviewer. With `change`
    lightning, `invoice` (BOLT 11, an exact amount) is paid out of a token's change. With `continue`
    (`carry_on` here) an answer that breaks off may be gone on with by another model server.
    """

    type: Literal["order"] = "order"
    model: ModelId
    body: Body
    price: Hex32
    ceiling_msat: Msat
    payment: Payment
    change: Literal["ecash", "account", "lightning"] = "ecash"
    invoice: InvoiceText | None = None
    deadline: Seconds
    end_by: Seconds | None = None
    chunk_ms: int | None = Field(default=None, ge=50, le=1000)
    carry_on: bool | None = Field(
        default=None, validation_alias="continue", serialization_alias="continue"
    )
    c: Hex32

    @model_validator(mode="after")
    def _invoice_for_change(self) -> Self:
        if (self.change == "lightning") != (self.invoice is not None):
            raise ValueError("change by lightning needs an invoice, and nothing else has one")
        if self.invoice is not None and self.payment.kind == "account":
            raise ValueError("change by lightning is for tokens; refund an account")
        return self


class Query(_FromClient):
    """Ask for the balance, the allowances or the plans, or how an order stands; its stored reply is
    sent again.

    `statement`: the latest one of the account that the asker knows, an event by the provider. One
    who has lost his records believes it.
    """

    type: Literal["query"] = "query"
    what: Literal["balance", "order", "allowances", "plans"]
    order: Hex32 | None = None
    statement: dict[str, Any] | None = None


class TopUp(_FromClient):
    """Put a token into the account of the key that wrote this, or ask for an invoice that does.

    One of the two: `token`, or `lightning_msat`, whole sats to be paid by Lightning.
    """

    type: Literal["topup"] = "topup"
    token: TokenText | None = None
    lightning_msat: Annotated[int, Field(ge=1_000, le=MSAT_MAX, multiple_of=1_000)] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.token is None) == (self.lightning_msat is None):
            raise ValueError("a top-up has either a token or lightning_msat")
        return self


class Refund(_FromClient):
    """Pay out of the account: `invoice` (BOLT 11, an exact amount), or the balance as a token."""

    type: Literal["refund"] = "refund"
    invoice: InvoiceText | None = None


class Allow(_FromClient):
    """Let another key spend from the account of the key that wrote this, in place of what it was
    allowed before.

    `limit_msat` for ever, or in each period of `period_s`; until `expires_at`.
    """

    type: Literal["allow"] = "allow"
    key: Hex32
    limit_msat: Msat
    period_s: int | None = Field(default=None, ge=60, le=1 << 32)
    expires_at: Seconds | None = None


class Disallow(_FromClient):
    """Take that back."""

    type: Literal["disallow"] = "disallow"
    key: Hex32


class Subscribe(_FromClient):
    """Buy a plan from the balance; `renew` is a standing order. For the plan that is in force it
    changes only that. `price_msat`: no more may come off the balance for it."""

    type: Literal["subscribe"] = "subscribe"
    plan: PlanId
    renew: bool = False
    price_msat: Msat | None = None


class Unsubscribe(_FromClient):
    """End the plan now; what is not used of it goes back into the balance."""

    type: Literal["unsubscribe"] = "unsubscribe"


class Cancel(_FromClient):
    """Stop an order; what was generated is charged."""

    type: Literal["cancel"] = "cancel"
    order: Hex32


class Ack(_FromClient):
    """The result arrived; its stored copy need not be sent again."""

    type: Literal["ack"] = "ack"
    order: Hex32


class NewOutputs(_FromClient):
    """Other outputs for an order's change: the mint signs with the first ones' keyset no more."""

    type: Literal["outputs"] = "outputs"
    order: Hex32
    outputs: list[Output] = Field(max_length=OUTPUTS_MAX)


ClientMessage = (
    Order
    | Query
    | TopUp
    | Refund
    | Allow
    | Disallow
    | Subscribe
    | Unsubscribe
    | Cancel
    | Ack
    | NewOutputs
)
FromClient = Annotated[ClientMessage, Field(discriminator="type")]


# what a provider answers


class Usage(Wire):
    """Tokens of one answer; `cached` and `reasoning` are part of prompt and completion."""

    prompt: int = Field(default=0, ge=0, le=1 << 40)
    completion: int = Field(default=0, ge=0, le=1 << 40)
    cached: int = Field(default=0, ge=0, le=1 << 40)
    reasoning: int = Field(default=0, ge=0, le=1 << 40)


class Problem(Wire):
    """What went wrong, as a stable code and a sentence."""

    code: str = Field(max_length=64)
    message: Line
    retry_after_s: int | None = Field(default=None, ge=0, le=86_400)

    @property
    def retryable(self) -> bool:
        """May the same order be sent again? A code we do not know is taken as final."""
        return CODES.get(self.code, False)


class Change(Wire):
    """Ecash that goes back to the client."""

    mint: MintUrl
    unit: Line
    amount: int = Field(ge=1, le=1 << 62)
    token: TokenText


class SignedOutput(Wire):
    """The mint's signature on an output of the client's (NUT-00, NUT-12)."""

    amount: int = Field(ge=1, le=1 << 62)
    id: KeysetId
    B_: Point
    C_: Point
    e: Scalar
    s: Scalar


class SignedChange(Wire):
    """Change as the mint's signatures on outputs that the client chose: worthless to others.

    `signatures` is empty until the mint has signed; a `settled` message brings them then.
    """

    mint: MintUrl
    unit: Line
    amount: int = Field(ge=1, le=1 << 62)
    signatures: list[SignedOutput] = Field(default=[], max_length=OUTPUTS_MAX)


class _FromProvider(Wire):
    v: Literal[1] = 1


class Accepted(_FromProvider):
    """The order is paid and will run; `event` (kind 25427) is the provider's signature on it.

    `session` is the key that signs the chunks. While it waits, `ahead` orders are before it, for
    about `wait_s`.
    """

    type: Literal["accepted"] = "accepted"
    order: Hex32
    event: dict[str, Any]
    session: Hex32
    ahead: int = Field(default=0, ge=0, le=1 << 20)
    wait_s: int | None = Field(default=None, ge=0, le=86_400)


class Refused(_FromProvider):
    """The order will not run and nothing was taken.

    `release`: the payment key's signatures on the secrets of the coins that were locked to it, in
    their order, so that the client takes them back at once.
    """

    type: Literal["refused"] = "refused"
    order: Hex32
    problem: Problem
    release: list[Signature] | None = Field(default=None, max_length=PROOFS_MAX)


class Result(_FromProvider):
    """How an order ended: the whole text, what it cost, and everything that comes back.

    With `problem` set the order failed: `cost_msat` is 0 and the whole payment less `fee_msat`, the
    mint's input fee, is in `change` and `credit_msat`. Of a locked token that nothing was taken of,
    all comes back by `release` (see Refused); of one that was, by `signed`.
    """

    type: Literal["result"] = "result"
    order: Hex32
    text: str = ""
    reasoning: str | None = None
    tool_calls: list[dict[str, Any]] | None = Field(default=None, max_length=128)
    sha256: Hex32
    finish_reason: str | None = Field(default=None, max_length=64)
    model: ModelId
    usage: Usage = Usage()
    cost_msat: Msat
    fee_msat: Msat = 0
    change: Change | None = None
    signed: SignedChange | None = None
    release: list[Signature] | None = Field(default=None, max_length=PROOFS_MAX)
    credit_msat: Msat = 0
    quota_msat: Msat | None = None
    statement: dict[str, Any] | None = None
    accepted: dict[str, Any] | None = None
    receipt: dict[str, Any] | None = None
    details: dict[str, Any] | None = None
    problem: Problem | None = None


class AllowanceState(Wire):
    """An allowance as it stands: `used_msat` of `limit_msat` in the period that is open."""

    owner: Hex32
    key: Hex32
    limit_msat: Msat
    used_msat: Msat
    period_s: int | None = Field(default=None, ge=0, le=1 << 32)
    expires_at: Seconds | None = None


class PlanOffer(Wire):
    """A plan for sale: what it costs for `period_s`, and what of the three it brings."""

    id: PlanId
    price_msat: Msat
    period_s: int = Field(ge=1, le=1 << 32)
    quota_msat: Msat | None = None
    percent: int | None = Field(default=None, ge=0, le=100)
    priority: int | None = Field(default=None, ge=0, le=1_000)


class PlanState(Wire):
    """A plan in force."""

    id: PlanId
    starts_at: Seconds
    ends_at: Seconds
    quota_left_msat: Msat | None = None
    renew: bool = False


class Answer(_FromProvider):
    """The reply to a query, a top-up, a refund or a cancel; `to` is the id of that message.

    `invoice` is what fills the account if it is paid by `expires_at`. `paid_msat` is what paying
    the client's own invoice cost in all, `fee_msat` what the mint took for a swap of coins; the
    account bore both.
    """

    type: Literal["answer"] = "answer"
    to: Hex32
    balance_msat: Msat | None = None
    statement: dict[str, Any] | None = None
    state: str | None = Field(default=None, max_length=32)
    change: Change | None = None
    invoice: InvoiceText | None = None
    expires_at: Seconds | None = None
    paid_msat: Msat | None = None
    allowances: list[AllowanceState] | None = Field(default=None, max_length=4_096)
    plans: list[PlanOffer] | None = Field(default=None, max_length=64)
    plan: PlanState | None = None
    fee_msat: Msat | None = None
    problem: Problem | None = None


class Settled(_FromProvider):
    """A locked token was swapped: the change that a `result` promised is signed.

    Where the mint would not sign the client's outputs it is credited instead (`credit_msat`, with a
    statement). A `problem` of code `payment-outputs-stale` asks for new outputs first.
    """

    type: Literal["settled"] = "settled"
    order: Hex32
    signed: SignedChange | None = None
    credit_msat: Msat = 0
    statement: dict[str, Any] | None = None
    problem: Problem | None = None


FromProvider = Annotated[
    Accepted | Refused | Result | Settled | Answer, Field(discriminator="type")
]


class _Envelope(Wire):
    reply: ReplyTo


_ENVELOPE: Final = TypeAdapter(_Envelope)
_FROM_CLIENT: Final[TypeAdapter[ClientMessage]] = TypeAdapter(FromClient)
_FROM_PROVIDER: Final[TypeAdapter[Accepted | Refused | Result | Settled | Answer]] = TypeAdapter(
    FromProvider
)


def parse_from_client(text: str) -> ClientMessage:
    """The content of a rumor that a client wrote. Raises RemoteError."""
    return parse(_FROM_CLIENT, text)


def parse_reply(text: str) -> ReplyTo | None:
    """Where a message that was refused wants its answer, if that much of it can be read."""
    try:
        return parse(_ENVELOPE, text).reply
    except RemoteError:
        return None


def parse_from_provider(text: str) -> Accepted | Refused | Result | Settled | Answer:
    """The content of a rumor that a provider wrote. Raises RemoteError."""
    return parse(_FROM_PROVIDER, text)


# signed events that travel inside messages and tags


class AcceptedTerms(Wire):
    """The content of kind 25427: what the provider bound himself to."""

    v: Literal[1] = 1
    order: Hex32
    client: Hex32
    price: Hex32
    model: ModelId
    ceiling_msat: Msat
    payment: Hex32
    session: Hex32


class Statement(Wire):
    """The content of kind 25428: an account as it stands; a higher `seq` replaces a lower one."""

    v: Literal[1] = 1
    account: Hex32
    seq: int = Field(ge=0, le=1 << 53)
    balance_msat: Msat


class Chunk(Wire):
    """The content of kind 25425, once decrypted: a piece of the answer.

    `seq` counts from 0 without a gap; `frame` follows CEP-41. A lost chunk is no loss: the result
    repeats the whole text.
    """

    seq: int = Field(ge=0, le=1 << 32)
    frame: Literal["start", "chunk", "ping", "close", "abort"] = "chunk"
    text: str = Field(default="", max_length=32_768)


_TERMS: Final = TypeAdapter(AcceptedTerms)
_STATEMENT: Final = TypeAdapter(Statement)
_CHUNK: Final = TypeAdapter(Chunk)


def parse_terms(event: Event) -> AcceptedTerms:
    """What an acceptance says. Raises RemoteError."""
    return parse(_TERMS, event.content)


def parse_statement(event: Event) -> Statement:
    """What an account statement says. Raises RemoteError."""
    return parse(_STATEMENT, event.content)


def parse_chunk(text: str) -> Chunk:
    """A decrypted chunk. Raises RemoteError."""
    return parse(_CHUNK, text)


def embedded_event(raw: dict[str, Any] | None, kind: int, author: str) -> Event:
    """An event carried inside a message, of this kind and by this author; verify it yourself.

    Raises RemoteError.
    """
    event = parse_event(raw)
    if event.kind != kind or event.pubkey != author:
        raise RemoteError("the embedded event is of another kind or author")
    return event
