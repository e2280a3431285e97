"""What comes in pieces: parts, chunks, lines of a model server."""

from __future__ import annotations

import base64
import itertools

from nostrllm.adapters.sse import EventStream
from nostrllm.core import stream
from nostrllm.core.parts import Assemblies
from nostrllm.core.stream import Chunker, Stream
from nostrllm.errors import EngineError, RemoteError
from nostrllm.wire import kinds
from nostrllm.wire.event import Draft, rumor
from tests.fuzz.target import Target, event_of, refusing, text_of


@refusing()
def part(data: bytes) -> None:
    """One part with any tags and content."""
    found = event_of(data, kinds.PART)
    Assemblies().add(rumor(Draft(kinds.PART, found.content, 5, found.tags), "a" * 64), 0.0)


def parts(data: bytes) -> None:
    """Several parts: four bytes say what each is, the rest is its slice."""
    assemblies = Assemblies()
    for at in range(0, len(data), 12):
        head, slice_ = data[at : at + 4].ljust(4, b"\0"), data[at + 4 : at + 12]
        tags = (
            ("order", f"{head[0] % 8:064x}"),
            ("part", str(head[1] % 8), str(head[2] % 8)),
            ("sha256", "0" * 64),
        )
        draft = Draft(kinds.PART, base64.b64encode(slice_).decode(), 5, tags)
        try:
            assert assemblies.add(rumor(draft, f"{head[3] % 4:064x}"), float(at)) is None
        except RemoteError:
            continue
    assert assemblies.size_bytes <= len(data)


def chunks(data: bytes) -> None:
    """Two bytes of seq, six of text, again and again; the whole text must be shown at the end."""
    client, said = Stream(), ""
    for at in range(0, len(data), 8):
        seq = int.from_bytes(data[at : at + 2], "big")
        said += client.push(seq, text_of(data[at + 2 : at + 8]))
    full = text_of(data)
    rest = client.finish(full)
    assert rest == full if client.diverged else said + rest == full


def chunking(data: bytes) -> None:
    """What the chunker gives out is what it got."""
    chunker = Chunker()
    said = [text_of(data[at : at + 7]) for at in range(0, len(data), 7)]
    given = [chunker.push(text, at / 10) for at, text in enumerate(said)]
    assert "".join(itertools.chain(*given, chunker.flush())) == "".join(said)


def padding(data: bytes) -> None:
    text = stream.unpad(text_of(data))
    assert stream.unpad(stream.pad(text)) == text


@refusing(EngineError)
def sse(data: bytes) -> None:
    """The same bytes in one block and byte by byte are the same events."""
    whole = EventStream().feed(data)
    bytewise = EventStream()
    assert [event for at in range(len(data)) for event in bytewise.feed(data[at : at + 1])] == whole


TARGETS: dict[str, Target] = {
    "part": part,
    "parts": parts,
    "chunks": chunks,
    "chunking": chunking,
    "padding": padding,
    "sse": sse,
}
