"""The three requests: told apart by one field, sized for estimates, closed to all else."""

from __future__ import annotations

from base64 import b64encode

import pytest
from pydantic import TypeAdapter

from nostrllm.errors import RemoteError
from nostrllm.wire.body import AnyRequest, Body, ChatRequest, CompletionRequest, EmbeddingRequest
from nostrllm.wire.message import parse

BODY: TypeAdapter[AnyRequest] = TypeAdapter(Body)
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (750).to_bytes(4, "big") * 2
URL = f"data:image/png;base64,{b64encode(PNG).decode()}"


def test_one_field_tells_them_apart() -> None:
    chat = parse(BODY, '{"messages":[{"role":"user","content":"é"}],"max_tokens":5}')
    completion = parse(BODY, '{"prompt":"é","max_tokens":5}')
    embedding = parse(BODY, '{"input":["é","b"],"dimensions":8}')
    assert isinstance(chat, ChatRequest)
    assert isinstance(completion, CompletionRequest)
    assert isinstance(embedding, EmbeddingRequest)
    for body, size_bytes, frames in ((chat, 16, 1), (completion, 2, 1), (embedding, 3, 2)):
        assert (body.size_bytes, body.frames, body.images) == (size_bytes, frames, ())
        assert BODY.validate_python(body) == body
        assert parse(BODY, body.model_dump_json(exclude_none=True)) == body
    assert embedding.as_body() == {"input": ["é", "b"], "dimensions": 8}
    assert completion.as_body() == {"prompt": "é", "max_tokens": 5}


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        '{"prompt":""}',
        '{"prompt":"a","messages":[]}',
        '{"prompt":"a","tools":[]}',
        '{"input":[]}',
        '{"input":[""]}',
        '{"input":"a"}',
        '{"input":["a"],"max_tokens":5}',
    ],
)
def test_what_is_none_of_them(text: str) -> None:
    with pytest.raises(RemoteError) as caught:
        parse(BODY, text)
    assert caught.value.code == "message-invalid"


def test_an_image_counts_as_its_tokens_not_as_its_bytes() -> None:
    text = {"type": "text", "text": "What?"}
    image = {"type": "image_url", "image_url": {"url": URL}}
    said = [{"role": "user", "content": [text]}]
    seen = [{"role": "user", "content": [text, image]}]
    without = ChatRequest.model_validate({"messages": said})
    body = ChatRequest.model_validate({"messages": seen})
    assert body.images == (URL,)
    assert body.size_bytes == without.size_bytes + 3 * 750


def test_an_address_is_no_image() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}
    body = ChatRequest.model_validate({"messages": [{"role": "user", "content": [image]}]})
    with pytest.raises(RemoteError):
        _ = body.size_bytes
