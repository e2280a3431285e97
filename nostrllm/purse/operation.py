"""One request to a mint as it is stored before it is sent, and what became of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from nostrllm.crypto.bdhke import y_of
from nostrllm.ports import Row, Write
from nostrllm.wire.token import BlindedMessage, BlindSignature, Dleq, Proof, Token

Kind = Literal["receive", "send", "mint", "reclaim", "ladder", "settle", "melt", "consolidate"]
#: Operations whose amount comes in, less the fee.
RECEIVING: Final = ("receive", "reclaim", "consolidate")
State = Literal["PREPARED", "DONE", "REJECTED", "SUSPECT"]


#: The counter of an output that somebody else made.
FOREIGN: Final = -1


@dataclass(frozen=True, slots=True)
class Own:
    """One of our outputs: from which counter it derives, and what its coin is for.

    `lock`: the key and the locktime of a coin that is locked to somebody, for ever if that is 0. An
    output that a client
    of ours made, and whose coin will be his, has no counter of ours; `owner` says whose it is.
    """

    amount: int
    counter: int
    state: str = "free"
    owner: str = ""
    lock: tuple[str, int] | None = None

    @property
    def foreign(self) -> bool:
        """Is the coin not ours?"""
        return self.counter == FOREIGN

    def as_row(self) -> list[Any]:
        """As it is stored."""
        row: list[Any] = [self.amount, self.counter, self.state, self.owner]
        return row if self.lock is None else [*row, list(self.lock)]

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Own:
        """As it was stored."""
        lock = (row[4][0], row[4][1]) if len(row) > 4 else None
        return cls(row[0], row[1], row[2], row[3], lock)


@dataclass(frozen=True, slots=True)
class Operation:
    """A swap, an issue or a melt, whole: the bytes that are sent follow from its fields.

    `outputs[i]` is made of `own[i]`. `amount` is what it is about, in units: the coins that come in
    (receive, reclaim), the token that goes out (send), the quote (mint), what is ours of locked
    coins (settle), the most that a ladder can bring, the invoice (melt). `back`: state and owner
    that inputs of ours get back if the mint refuses. A melt's `fee` is the most it may cost until
    it is DONE, and then what it cost.
    """

    id: str
    kind: Kind
    mint: str
    unit: str
    amount: int
    fee: int
    outputs: tuple[BlindedMessage, ...]
    own: tuple[Own, ...]
    inputs: tuple[Proof, ...] = ()
    quote: str = ""
    back: tuple[str, str] = ("free", "")
    state: State = "PREPARED"
    code: str = ""
    note: str = ""

    @property
    def net(self) -> int:
        """What it leaves, in units."""
        return self.amount - self.fee if self.kind in RECEIVING else self.amount

    def insert(self, now: float) -> Write:
        """The write that journals it."""
        values = {
            name: getattr(self, name)
            for name in ("id", "kind", "mint", "unit", "state", "amount", "fee")
        }
        finished_at = now if self.state != "PREPARED" else None
        texts = {"body": self._body(), "own": self._own()}
        return Write(
            "operation_insert", values | texts | {"created_at": now, "finished_at": finished_at}
        )

    def renumber(self, outputs: Sequence[BlindedMessage], own: Sequence[Own]) -> Operation:
        """The same with other outputs."""
        return replace(self, outputs=tuple(outputs), own=tuple(own))

    def renumbered(self) -> Write:
        """The write that replaces its outputs."""
        values = {"id": self.id, "body": self._body(), "own": self._own()}
        return Write("operation_renumber", values, rows=1)

    def finish(self, now: float) -> Write:
        """The write that ends it; one of two that try meets a Conflict."""
        names = ("id", "state", "fee", "code", "note")
        values = {name: getattr(self, name) for name in names}
        return Write("operation_finish", values | {"finished_at": now}, rows=1)

    def _body(self) -> str:
        body = {
            "inputs": [proof.as_input() for proof in self.inputs],
            "outputs": [output.as_dict() for output in self.outputs],
            "quote": self.quote,
            "back": self.back,
        }
        return json.dumps(body, separators=(",", ":"))

    def _own(self) -> str:
        return json.dumps([own.as_row() for own in self.own], separators=(",", ":"))

    @classmethod
    def from_row(cls, row: Row) -> Operation:
        """A row of `operation_get`."""
        body: Mapping[str, Any] = json.loads(row["body"])
        return cls(
            **{key: row[key] for key in ("id", "kind", "mint", "unit", "state", "code", "note")},
            amount=int(row["amount"]),
            fee=int(row["fee"]),
            inputs=tuple(map(Proof.from_dict, body["inputs"])),
            outputs=tuple(map(BlindedMessage.from_dict, body["outputs"])),
            own=tuple(map(Own.from_row, json.loads(row["own"]))),
            quote=body["quote"],
            back=(body["back"][0], body["back"][1]),
        )


@dataclass(frozen=True, slots=True)
class Signed:
    """An output that `owner` made, and the mint's signature on it."""

    owner: str
    output: BlindedMessage
    signature: BlindSignature


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an operation.

    `state`: DONE; REJECTED (the mint did not do it and never will; our own coins are ours again);
    PREPARED (not known yet, run it again). Units: `amount` as in Operation, `fee` the mint's, `net`
    what is left. `code` is a wire code when it is not DONE. `token` holds the coins of a send.
    `suspect`: of the mint's signatures some do not verify; its answer is kept. `proofs` and
    `signed` have what was signed well, in a settle and in a ladder; the rest counts as lost.
    `signed`: the mint's signatures on outputs that were not ours.
    """

    op_id: str
    kind: Kind
    state: Literal["DONE", "REJECTED", "PREPARED"]
    mint: str
    unit: str
    amount: int
    fee: int
    net: int
    code: str = ""
    note: str = ""
    proofs: tuple[Proof, ...] = ()
    token: Token | None = None
    suspect: bool = False
    signed: tuple[Signed, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """A receive, settle or melt that may be done: commit `writes` with your own, then `run(op_id)`.

    A Conflict called `claim_insert` means that a coin of a receive was seen before, one called
    `proof_mark` that a coin of a melt went elsewhere. A melt's `fee` is the most it can cost.
    """

    op_id: str
    mint: str
    unit: str
    amount: int
    fee: int
    net: int
    writes: tuple[Write, ...]


def plan_of(operation: Operation, writes: Sequence[Write]) -> Plan:
    """A planned operation as a caller sees it."""
    mint, unit, amount = operation.mint, operation.unit, operation.amount
    return Plan(operation.id, mint, unit, amount, operation.fee, operation.net, tuple(writes))


Then = Callable[[Outcome], Sequence[Write]]


def nothing(outcome: Outcome) -> Sequence[Write]:
    """The `then` of a caller that has nothing to add."""
    return ()


def outcome_of(
    operation: Operation,
    proofs: Sequence[Proof] = (),
    token: Token | None = None,
    signed: Sequence[Signed] = (),
) -> Outcome:
    """How a caller sees the operation."""
    suspect = operation.state == "SUSPECT"
    return Outcome(
        operation.id,
        operation.kind,
        "REJECTED" if operation.state == "SUSPECT" else operation.state,
        operation.mint,
        operation.unit,
        operation.amount,
        operation.fee,
        operation.net,
        operation.code,
        operation.note,
        tuple(proofs),
        token,
        suspect,
        tuple(signed),
    )


def proof_of(row: Row) -> Proof:
    """A row of the proof table as the coin it holds."""
    dleq = Dleq(row["dleq_e"], row["dleq_s"], row["dleq_r"])
    return Proof(row["keyset_id"], int(row["amount"]), row["secret"], row["c"], dleq)


def proof_write(name: str, proof: Proof, operation: Operation, own: Own) -> Write:
    """The write that stores a coin of ours; its DLEQ is there, for the mint's was checked."""
    dleq = proof.dleq or Dleq("", "")
    return Write(
        name,
        {
            "y": y_of(proof.secret),
            "mint": operation.mint,
            "unit": operation.unit,
            "keyset_id": proof.id,
            "amount": proof.amount,
            "secret": proof.secret,
            "c": proof.C,
            "dleq_e": dleq.e,
            "dleq_s": dleq.s,
            "dleq_r": dleq.r or "",
            "state": own.state,
            "owner": own.owner,
            "operation": operation.id,
        },
    )


def mark(proofs: Sequence[Proof], from_state: str, to_state: str, owner: str) -> list[Write]:
    """The writes that move coins of ours; a Conflict if one is not in `from_state`."""
    return [
        Write(
            "proof_mark",
            {
                "y": y_of(proof.secret),
                "from_state": from_state,
                "to_state": to_state,
                "owner": owner,
            },
            rows=1,
        )
        for proof in proofs
    ]
