"""Every error of the project, as one tree whose branches say who is to blame.

NostrllmError
├── RemoteError      a peer sent something we refuse: his to mend
├── LocalError       we were asked for, or did, something wrong: ours to mend
│   └── ConfigError      a configuration file or option is wrong
└── WorldError       something outside both of us failed: a relay, a mint, an engine, a disk
    ├── MintRefused      the mint answered no: nothing happened there
    ├── OutcomeUnknown   the mint gave no usable answer: anything may have happened there
    ├── EngineError      the model server failed
    ├── RelayError       no relay took or gave what was needed
    └── StoreError       the database did not commit: nothing was written

Each has a stable wire code (docs/protocol.md, "Error codes"), says whether the same request may be
tried again, and carries a text that is safe to show to a peer: no key, token or prompt in it.
"""

from __future__ import annotations

from typing import ClassVar, Final

#: code → may the same request succeed later, unchanged?
CODES: Final[dict[str, bool]] = {
    "payment-required": True,
    "payment-token-spent": False,
    "payment-token-invalid": False,
    "payment-token-locked-wrong": False,
    "payment-mint-unaccepted": False,
    "payment-rate-unknown": True,
    "payment-mint-unreachable": True,
    "payment-amount-low": False,
    "payment-amount-high": False,
    "payment-pending": True,
    "payment-outputs-wrong": False,
    "payment-outputs-stale": True,
    "payment-invoice-invalid": False,
    "payment-lightning-failed": False,
    "payment-request-unknown": False,
    "price-changed": True,
    "price-expired": True,
    "model-unknown": False,
    "model-unavailable": True,
    "context-too-long": False,
    "busy": True,
    "rate-limited": True,
    "work-required": True,
    "deadline": True,
    "cancelled": False,
    "generation-failed": True,
    "content-refused": False,
    "message-invalid": False,
    "message-stale": False,
    "message-too-large": False,
    "version-unsupported": False,
    "account-unknown": False,
    "account-insufficient": True,
    "client-blocked": False,
    "plan-unknown": False,
    "plan-active": False,
    "internal": True,
    # Codes that only our own commands print; they never travel.
    "config-invalid": False,
    "relay-unreachable": True,
    "provider-unknown": False,
    "provider-silent": True,
    "wallet-empty": False,
    "receipt-invalid": False,
    "store-failed": True,
    "not-found": False,
    "payee-unreachable": True,
    "payment-request-paid": False,
    "devnet-failed": True,
}


class NostrllmError(Exception):
    """Something went wrong."""

    blame: ClassVar[str] = "us"
    default_code: ClassVar[str] = "internal"

    def __init__(self, message: str | None = None, *, code: str | None = None) -> None:
        self.code = code or self.default_code
        if self.code not in CODES:
            raise ValueError(f"unknown error code {self.code!r}")
        self.message = message or (type(self).__doc__ or "").splitlines()[0]
        super().__init__(self.message)

    @property
    def retryable(self) -> bool:
        """May the same request succeed later, unchanged?"""
        return CODES[self.code]


class RemoteError(NostrllmError):
    """The message is not valid."""

    blame = "peer"
    default_code = "message-invalid"

    def __init__(
        self,
        message: str | None = None,
        *,
        code: str | None = None,
        fraud: str = "",
        retry_after_s: int | None = None,
    ) -> None:
        """`fraud`: what its author is charged with (core.conduct.Kind), "" for a mistake.
        `retry_after_s`: when it may be asked again, where that is known."""
        self.fraud = fraud
        self.retry_after_s = retry_after_s
        super().__init__(message, code=code)


class LocalError(NostrllmError):
    """The request cannot be carried out here."""


class ConfigError(LocalError):
    """The configuration is not valid."""

    default_code = "config-invalid"


class WorldError(NostrllmError):
    """Something outside failed."""

    blame = "world"


class MintRefused(WorldError):
    """The mint refused; nothing happened there."""

    default_code = "payment-token-invalid"

    def __init__(self, mint_code: int, detail: str, *, code: str | None = None) -> None:
        self.mint_code = mint_code
        super().__init__(f"the mint refused: {detail} ({mint_code})", code=code)


class OutcomeUnknown(WorldError):
    """The mint gave no usable answer; what it did is not known."""

    default_code = "payment-mint-unreachable"

    def __init__(
        self, message: str | None = None, *, code: str | None = None, answered: bool = False
    ) -> None:
        """`answered`: the mint is done with the request, only what it did it has not said."""
        self.answered = answered
        super().__init__(message, code=code)


class EngineError(WorldError):
    """The model server failed."""

    default_code = "generation-failed"


class RelayError(WorldError):
    """No relay could be reached."""

    default_code = "relay-unreachable"


class StoreError(WorldError):
    """The database did not commit."""

    default_code = "store-failed"
