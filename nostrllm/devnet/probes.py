"""One protocol round trip with each devnet process: the proof that it is up."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

TIMEOUT_S = 5.0
BODY_BYTES_MAX = 1 << 22


def relay_answers(url: str) -> None:
    """A REQ is answered by EOSE (NIP-01). Raises OSError."""
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect

    try:
        with connect(url, open_timeout=TIMEOUT_S, close_timeout=1) as socket:
            socket.send(json.dumps(["REQ", "ready", {"kinds": [1], "limit": 1}]))
            while json.loads(socket.recv(timeout=TIMEOUT_S))[0] != "EOSE":
                continue
    except WebSocketException as error:
        raise OSError(f"the relay gave no EOSE: {error}") from None


def mint_answers(url: str) -> None:
    """GET /v1/info is 200 (NUT-06). Raises OSError."""
    _get(url, "/v1/info")


def model_answers(url: str) -> None:
    """GET /health is 200. Raises OSError."""
    _get(url, "/health")


def first_model(url: str) -> str:
    """The first model that an OpenAI-compatible server lists; `url` as the API's base. OSError."""
    try:
        return str(
            json.loads(_get(url, urlsplit(url).path.rstrip("/") + "/models"))["data"][0]["id"]
        )
    except (ValueError, LookupError, TypeError):
        raise OSError("it lists no model") from None


def _get(url: str, path: str) -> bytes:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        status, body = response.status, response.read(BODY_BYTES_MAX)
    except http.client.HTTPException as error:
        raise OSError(str(error)) from None
    finally:
        connection.close()
    if status != 200:
        raise OSError(f"{path} answered {status}")
    return body
