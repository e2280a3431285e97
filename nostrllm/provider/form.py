"""Does a model take a request of this form? Looked at before anything is priced."""

from __future__ import annotations

from nostrllm.errors import RemoteError
from nostrllm.wire.announcement import ModelOffer
from nostrllm.wire.image import IMAGES_MAX
from nostrllm.wire.order import AnyRequest, ChatRequest

#: What every request has, or may have.
ALWAYS_TAKEN = frozenset(("messages", "prompt", "input", "max_tokens"))


def check_form(request: AnyRequest, offer: ModelOffer, bytes_max: int) -> None:
    """Refuse what this model does not take; `bytes_max` of images. Raises RemoteError."""
    if not offer.does(request.task):
        raise RemoteError(f"this model does no {request.task}")
    unknown = sorted(set(request.as_body()) - ALWAYS_TAKEN - set(offer.parameters))
    if unknown:
        raise RemoteError(f"this model takes no {', '.join(unknown)}")
    if isinstance(request, ChatRequest):
        _check_parts(request, sees="image" in offer.modalities)
    if len(request.images) > IMAGES_MAX:
        raise RemoteError(f"a request has {IMAGES_MAX} images at most")
    if sum(map(len, request.images)) > bytes_max:
        raise RemoteError("the images are too large", code="message-too-large")


def _check_parts(request: ChatRequest, *, sees: bool) -> None:
    """Text, and images where the model sees; anything else may be an address, which the engine
    would fetch for a stranger."""
    for message in request.messages:
        for part in message.content if isinstance(message.content, list) else ():
            match part:
                case {"type": "text", "text": str()}:
                    continue
                case {"type": "image_url", "image_url": {"url": str(), **look}, **more} if (
                    sees and not more and look.keys() <= {"detail"}
                ):
                    continue
            raise RemoteError("this model takes text only" if not sees else "not a part it takes")
